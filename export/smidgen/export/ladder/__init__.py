"""The budget ladder: remedies from the cheapest up, until a file fits budget and gate."""
