"""Charts, pictures and pages."""
