"""How far a watch's probabilities can be trusted."""
