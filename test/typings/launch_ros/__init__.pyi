"""What the launch files use of launch_ros. Source: launch_ros 0.19 (Humble)."""
