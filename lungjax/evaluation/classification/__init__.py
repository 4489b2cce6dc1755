"""How well a score tells malignant nodules from benign ones, and one reader's rating beside it."""
