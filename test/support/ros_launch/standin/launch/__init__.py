"""A stand-in for ROS 2's `launch`: as much of it as our launch files use, and nothing else.

It is not on PyPI (the package of that name there is another one). Where ROS has it the tests take
the real one; see `support.ros_launch.use`. Shapes as in launch 1.0 (Humble) to 3.7.
"""

from launch._description import LaunchContext, LaunchDescription

__all__ = ['LaunchContext', 'LaunchDescription']
