"""Studies: many runs of a recipe, and the table and figure that they give together."""
