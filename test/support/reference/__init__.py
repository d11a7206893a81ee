"""Float references: the published models' own classes, in torch. Needs the `reference` extra."""
