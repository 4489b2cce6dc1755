"""The version of lungjax: what is written beside each result."""

VERSION = "0.1.0"
