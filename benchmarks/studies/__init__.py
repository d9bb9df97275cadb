"""What the other commands measure: peers, scaling, breakdown, and two trees in turn."""
