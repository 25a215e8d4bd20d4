"""Numbers that compare films and pictures; expert networks are handed in, never loaded here."""
