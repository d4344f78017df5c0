"""A night: which stages run, which are skipped, and their end as one record."""
