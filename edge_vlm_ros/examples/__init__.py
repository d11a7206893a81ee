"""Nodes to copy from: plain rclpy, one purpose each. `python -m edge_vlm_ros.examples.NAME`."""
