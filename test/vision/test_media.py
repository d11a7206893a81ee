"""Video files, image files, folders, webcams: frames in order with their times."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_vlm_ros.core import BadImageError, BadRequestError
from edge_vlm_ros.vision.media import FALLBACK_FPS, FOLDER_FPS, MediaReader, open_media

SIZE = (64, 48)
COUNT = 12


def shade(number: int) -> int:
    """The red of frame `number`; far enough apart to survive a lossy codec."""
    return 10 + 20 * number


@pytest.fixture(scope='module')
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('media') / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10.0, SIZE)
    assert writer.isOpened()
    for number in range(COUNT):
        writer.write(np.full((SIZE[1], SIZE[0], 3), (0, 0, shade(number)), np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in (1, 2, 10):
        image = np.full((SIZE[1], SIZE[0], 3), (shade(number), 0, 0), np.uint8)
        Image.fromarray(image).save(tmp_path / f'frame_{number}.png')
    (tmp_path / 'notes.txt').write_text('not an image')
    return tmp_path


def numbers(frames) -> list[int]:
    return [round((frame.pixels[..., 0].mean() - 10) / 20) for frame in frames]


def test_a_video_gives_its_frames_in_order_with_times(video):
    with open_media(video) as media:
        frames = list(media)
    assert media.fps == pytest.approx(10.0)
    assert numbers(frames) == list(range(COUNT))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 10 for i in range(COUNT)])
    for pixels, _ in frames:
        assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
        assert not pixels.flags.writeable
        assert pixels[..., 1:].max() < 30


def test_a_video_can_be_read_again_from_the_start(video):
    media = open_media(str(video))
    assert numbers(itertools.islice(media, 3)) == [0, 1, 2]
    assert numbers(media) == list(range(COUNT))
    media.close()
    media.close()


def test_a_looped_video_goes_on_and_its_times_rise(video):
    with open_media(video, loop=True) as media:
        frames = list(itertools.islice(media, 2 * COUNT + 2))
    assert numbers(frames) == [*range(COUNT), *range(COUNT), 0, 1]
    assert [frame.time_s for frame in frames] == pytest.approx(
        [i / 10 for i in range(len(frames))]
    )


def test_the_frame_rate_can_be_set(video, folder):
    with open_media(video, fps=20.0) as media:
        assert media.fps == 20.0
        assert [frame.time_s for frame in itertools.islice(media, 3)] == [0.0, 0.05, 0.1]
    with open_media(folder, fps=5.0) as media:
        assert [frame.time_s for frame in media] == [0.0, 0.2, 0.4]


def test_a_folder_is_read_in_the_order_of_its_numbers(folder):
    with open_media(folder) as media:
        frames = list(media)
    assert media.fps == FOLDER_FPS
    assert numbers(frames) == [1, 2, 10]
    assert [frame.time_s for frame in frames] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp', '.tiff', '.PNG'])
def test_an_image_file_is_one_frame(tmp_path, suffix):
    path = tmp_path / f'picture{suffix}'
    Image.new('RGB', SIZE, (shade(3), 0, 0)).save(path)
    (frame,) = open_media(path)
    assert frame.time_s == 0.0
    assert numbers([frame]) == [3]
    assert not frame.pixels.flags.writeable


def test_a_looped_image_is_a_still_camera(tmp_path):
    Image.new('RGB', SIZE, (shade(3), 0, 0)).save(tmp_path / 'one.png')
    media = open_media(tmp_path / 'one.png', fps=4.0, loop=True)
    assert [frame.time_s for frame in itertools.islice(media, 3)] == [0.0, 0.25, 0.5]


def test_a_number_that_names_a_folder_is_no_webcam(folder):
    numbered = folder / '7'
    numbered.mkdir()
    (folder / 'frame_1.png').rename(numbered / 'frame_1.png')
    assert isinstance(open_media(numbered), MediaReader)


@pytest.mark.parametrize('source', ['/nowhere/clip.mp4', Path('/nowhere/pictures')])
def test_a_missing_file_is_named(source):
    with pytest.raises(BadRequestError, match='no such file or folder: /nowhere/'):
        open_media(source)


@pytest.mark.parametrize('index', [-1, 97, '97'])
def test_a_missing_webcam_says_what_to_look_at(index):
    with pytest.raises(BadRequestError, match=r'webcam'):
        open_media(index)


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadImageError, match=r'holds no images; looked for .*\.png'):
        open_media(tmp_path)


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.avi', 'clip'])
@pytest.mark.parametrize('data', [b'', b'not a video at all' * 50])
def test_a_file_that_is_no_video_is_refused_when_opened(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadImageError, match=r'clip.* (is not a video|no frame)'):
        open_media(path)


def test_a_truncated_video_header_is_refused_when_opened(tmp_path, video):
    path = tmp_path / 'cut.avi'
    path.write_bytes(video.read_bytes()[:300])
    with pytest.raises(BadImageError, match=r'cut\.avi'):
        open_media(path)


@pytest.mark.parametrize('name', ['picture.png', 'picture.jpg', 'picture.bmp', 'picture.webp'])
@pytest.mark.parametrize('data', [b'', b'no picture' * 50])
def test_a_file_that_is_no_image_is_refused_when_opened(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadImageError, match=name):
        open_media(tmp_path / name)


@pytest.mark.parametrize('data', [b'', b'no picture'])
def test_a_bad_image_inside_a_folder_is_passed_over_with_one_warning(folder, caplog, data):
    (folder / 'frame_5.png').write_bytes(data)
    media = open_media(folder, loop=True)
    assert numbers(itertools.islice(media, 7)) == [1, 2, 10, 1, 2, 10, 1]
    assert [record.getMessage() for record in caplog.records].count(
        caplog.records[0].getMessage()
    ) == 1
    assert 'frame_5.png' in caplog.text


def test_a_bad_image_that_comes_first_does_not_end_a_looped_folder(folder):
    (folder / 'frame_0.png').write_bytes(b'')
    assert numbers(itertools.islice(open_media(folder, loop=True), 4)) == [1, 2, 10, 1]


def test_a_folder_of_bad_images_is_refused(tmp_path):
    for number in range(3):
        (tmp_path / f'{number}.png').write_bytes(b'')
    with pytest.raises(BadImageError, match='none of its 3 images can be read'):
        open_media(tmp_path)


def test_hidden_twins_and_folders_that_look_like_images_are_passed_over(folder, caplog):
    (folder / '._frame_1.png').write_bytes(b'a Mac wrote this')
    (folder / 'thumbnails.png').mkdir()
    assert numbers(open_media(folder)) == [1, 2, 10]
    assert '._frame_1.png, thumbnails.png' in caplog.text


def test_an_image_is_told_by_its_first_bytes_not_by_its_name(tmp_path):
    for name, kind in [('photo.jpg', 'WEBP'), ('plain', 'PNG'), ('clip.mp4', 'TIFF')]:
        Image.new('RGB', SIZE, (shade(4), 0, 0)).save(tmp_path / name, kind)
        assert numbers(open_media(tmp_path / name)) == [4]


def test_the_size_of_an_image_is_bounded_whatever_its_name(tmp_path):
    path = tmp_path / 'no_suffix'
    sides = struct.pack('>II', 20_000, 20_000)
    path.write_bytes(b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + sides + b'\x08\x02' + bytes(99))
    with pytest.raises(BadImageError, match='the limit is'):
        open_media(path)


def test_a_video_of_variable_frame_rate_has_its_real_times(tmp_path, monkeypatch):
    from edge_vlm_ros.vision.media import _RisingTimes

    times = _RisingTimes(10.0)
    own = [7.0, 7.033, 7.066, 8.5, 8.5, 3.0, float('nan'), 9.5]
    expected = [0.0, 0.033, 0.066, 1.5, 1.6, 1.7, 1.8, 2.5]
    assert [times.next(time_s) for time_s in own] == pytest.approx(expected)


@pytest.mark.parametrize('fps', [-1.0, float('nan'), 1e6])
def test_a_senseless_frame_rate_is_refused(folder, fps):
    with pytest.raises(BadRequestError, match='fps'):
        open_media(folder, fps=fps)


@pytest.mark.parametrize('told', [0.0, float('nan'), 90_000.0, -1.0])
def test_a_source_that_does_not_know_its_rate_gets_a_usual_one(told):
    from edge_vlm_ros.vision.media import _plausible_fps

    assert _plausible_fps(told) == FALLBACK_FPS
    assert _plausible_fps(24.0) == 24.0
