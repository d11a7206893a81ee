"""The figures, one module for each thing that is measured."""
