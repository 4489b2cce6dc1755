"""The packages: all in lungjax/; and configs/, which is installed as lungjax.configs, for runs far from this folder."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lungjax", "lungjax.*"]), "lungjax.configs"],
    package_dir={"lungjax.configs": "configs"},
)
