"""A robot's cameras as tools of an agent (Model Context Protocol); whoever gives the robot."""
