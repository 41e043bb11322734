"""The page of a corpus, its systems and their mistakes: collected from runs, written as one file or served."""
