"""Review of segments: listen, relabel, mend and export what a run has found."""
