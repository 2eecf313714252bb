"""What the hot paths cost, as ratios to a named peer measured in the same run."""
