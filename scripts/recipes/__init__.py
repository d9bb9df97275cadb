"""How the networks are trained: recipes as published, and plans as they come out for data and machine."""
