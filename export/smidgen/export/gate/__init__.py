"""The accuracy-regression gate."""
