"""Send an answer from one process to another: `messages_cross.py listen|talk MODULE_FOLDER`.

Run by the build tests with the Python and the variables of the build under test. MODULE_FOLDER is
where the interfaces must come from.
"""

import sys
import time
from pathlib import Path

import rclpy
from edge_vlm_ros.msg import Answer

from edge_vlm_ros import action, msg, srv

TIMEOUT_S = 60.0
TEXT = 'a red ball, 红色的球'


def listen(node):
    """Print the text of the first answer that comes."""
    heard = []
    node.create_subscription(Answer, 'answer', heard.append, 10)
    print('listening', flush=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not heard and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    if not heard:
        sys.exit('nothing came')
    print(
        f'heard {heard[0].text} {heard[0].finish_reason} {heard[0].frames[0].camera}', flush=True
    )


def talk(node):
    """Publish an answer until somebody has heard it."""
    publisher = node.create_publisher(Answer, 'answer', 10)
    answer = Answer(text=TEXT, finish_reason=Answer.FINISH_STOP)
    answer.frames = [msg.FrameRef(camera='front')]
    deadline = time.monotonic() + TIMEOUT_S
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    publisher.publish(answer)
    if not publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=10)):
        sys.exit('nobody took it')


def main():
    """Check where the interfaces come from, then talk or listen."""
    role, folder = sys.argv[1:]
    for module in (action, msg, srv):
        if Path(folder) not in Path(module.__file__).parents:
            sys.exit(f'{module.__name__} is {module.__file__}, not in {folder}')
    rclpy.init()
    node = rclpy.create_node(role)
    {'listen': listen, 'talk': talk}[role](node)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
