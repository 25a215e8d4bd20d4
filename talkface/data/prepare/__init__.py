"""From a folder as people download it to a corpus: what each set looks like, and what makes a corpus of any of them."""
