"""How well masks agree with the readers' masks: overlap, borders, disagreement, reliability."""
