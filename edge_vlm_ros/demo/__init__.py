"""The demo: a small model that truly looks, clips of its world, a robot that is asked."""
