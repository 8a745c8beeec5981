"""What follows training: a trained model leaves for other programs and other machines."""
