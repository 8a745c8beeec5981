"""What the train loop tells a decode head that asks for it."""


def test_a_head_is_told_the_length_of_training_and_each_step(toy):
    told = []
    runner = toy(steps=3, micro_batch=4)
    head = runner.model.decode_head
    head.begin_training = lambda *args: told.append(args)
    head.begin_step = lambda samples, *args: told.append((len(samples), *args))
    runner.train()
    assert told == [(3,), *((16, 4, step, 0) for step in range(3))]
