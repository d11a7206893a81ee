"""The command line, without ROS: `edge-vlm ask`, `edge-vlm doctor`, `edge-vlm models`."""
