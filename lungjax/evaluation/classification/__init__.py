"""How well a score separates malignant from benign nodules, compared with a single reader's rating."""
