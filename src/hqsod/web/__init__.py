"""What the pages that hqsod serves have in common: who is let in, and for how long."""
