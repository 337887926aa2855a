"""Every table and figure of the papers: what is run for it, the paper's numbers beside the measured ones."""
