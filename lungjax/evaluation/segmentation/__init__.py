"""How well masks agree with the readers': overlap, borders, disagreement, reliability."""
