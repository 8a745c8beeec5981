"""Package vfm_ss: ``pip install .`` or ``pip install -e .``, with an extra for the OpenMMLab stack.

The configs and tools travel inside the package as ``vfm_ss/.mim`` (links in the repository), where
mmengine looks for them when another project inherits ``vfm_ss::...``.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
EXTRAS = (
    "mminstall",
    "openmmlab",
    "tests",
    "docs",
    "tensorboard",
    "wandb",
    "export",
    "lora",
    "fuzz",
)


def requirements(name: str) -> list[str]:
    """Read the requirements of one file, without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def extras() -> dict[str, list[str]]:
    """Return the requirements of every extra; tests need those of what they test."""
    found = {name: requirements(name) for name in EXTRAS}
    return {**found, "tests": found["tests"] + found["export"] + found["lora"]}


def version() -> str:
    """Read the version without importing the package, which needs torch and mmseg."""
    scope: dict = {}
    exec((ROOT / "vfm_ss" / "version.py").read_text(encoding="utf-8"), scope)
    return scope["__version__"]


def mim_files() -> list[str]:
    """List what ``vfm_ss/.mim`` ships: setuptools' own patterns pass over links and dot files.

    Of the tools those that work from an installed package: not the demo, the tests, the benchmarks
    and the fuzzers, which need the repository.
    """
    package = ROOT / "vfm_ss"
    patterns = ["model-index.yml", "configs/**/*.py", "configs/**/*.yml"]
    patterns += [f"tools/{name}" for name in ("*.py", "dist_*.sh", "slurm*.sh", "launch.sh")]
    files = [path for pattern in patterns for path in (package / ".mim").glob(pattern)]
    return [str(path.relative_to(package)) for path in files]


setup(
    name="vfm_ss",
    version=version(),
    description="Benchmark vision foundation models for semantic segmentation on MMSegmentation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["vfm_ss", "vfm_ss.*"]),
    entry_points={"console_scripts": ["vfm-ss = vfm_ss.cli.main:main"]},
    package_data={"vfm_ss": [*mim_files(), "report/templates/*", "protocol/*.csv"]},
    python_requires=">=3.10,<3.13",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12)],
    install_requires=requirements("runtime"),
    extras_require=extras(),
    zip_safe=False,
)
