"""`edge-vlm models fetch`: the real clients' command lines, against servers of our own.

The Hub is a small server on this machine that speaks what huggingface_hub asks for; the client is
the real one. Sophgo's `dfss` is a stand-in of the same command line, for its servers.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from edge_vlm_ros.models import load_catalogue

COMMIT = '48bb181aa11917fea8309a6304c570152f9b5903'
ALL = load_catalogue()
# What dfss 1.10.9 does: `--url=...`, the file into the working directory, 1 where that fails.
DFSS = """\
import argparse, os, shutil, sys
parser = argparse.ArgumentParser()
parser.add_argument('--url', required=True)
url = parser.parse_args().url
served = os.path.join(os.environ['DFSS_SERVES'], url.rpartition('/')[2])
print('dfss python tool, get file from', url)
if not os.path.isfile(served):
    print('Cannot download')
    sys.exit(1)
shutil.copy(served, os.path.basename(served))
with open(os.path.join(os.environ['DFSS_SERVES'], 'log'), 'a') as log:
    log.write(url + '\\n')
"""


class Hub:
    """What the server has, and what was asked of it."""

    def __init__(self):
        self.repositories = {}
        self.gated = set()
        self.spoiled = set()
        self.breaks_off = set()
        self.sha = COMMIT
        self.listed_later = {}
        self.asked = []

    def put(self, repository, **files):
        self.repositories[repository] = files


class Handler(BaseHTTPRequestHandler):
    """The endpoints of the Hub that a download of a model needs."""

    def __init__(self, hub, *args):
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *args):
        """Stay quiet."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get('Range')))
        for name, files in list(self.hub.repositories.items()):
            if path.startswith(f'/api/models/{name}'):
                self.send_json(self.listing(name, files, path), with_body)
                files.update(self.hub.listed_later)
                return
            if path.startswith(f'/{name}/resolve/'):
                self.send_file(name, files, path.split('/', 5)[5], with_body)
                return
        self.send_refusal(404, 'RepoNotFound')

    def listing(self, name, files, path):
        entries = [self.entry(file, content) for file, content in files.items()]
        if '/tree/' in path:
            return [{**entry, 'type': 'file', 'oid': entry['blobId'], 'path': entry['rfilename']}
                    for entry in entries]  # fmt: skip
        about = {'private': False, 'disabled': False, 'downloads': 0, 'likes': 0, 'tags': []}
        return {'id': name, 'modelId': name, 'sha': self.hub.sha, **about, 'siblings': entries}

    @staticmethod
    def entry(file, content):
        blob = hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()
        entry = {'rfilename': file, 'size': len(content), 'blobId': blob}
        if file.endswith(('.axmodel', '.bin')):
            sha = hashlib.sha256(content).hexdigest()
            entry['lfs'] = {'sha256': sha, 'oid': sha, 'size': len(content), 'pointerSize': 130}
        return entry

    def send_json(self, content, with_body):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def send_refusal(self, status, code):
        self.send_response(status)
        self.send_header('X-Error-Code', code)
        self.send_header('X-Error-Message', code)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def send_file(self, name, files, file, with_body):
        if name in self.hub.gated:
            self.send_refusal(403, 'GatedRepo')
            return
        content = files[file]
        entry = self.entry(file, content)
        etag = entry['lfs']['sha256'] if 'lfs' in entry else entry['blobId']
        sent = bytes(len(content)) if file in self.hub.spoiled else content
        first = self.headers.get('Range', 'bytes=0-')[len('bytes=') :].split('-')[0]
        sent = sent[int(first) :]
        self.send_response(206 if int(first) else 200)
        self.send_header('ETag', f'"{etag}"')
        self.send_header('X-Repo-Commit', self.hub.sha)
        self.send_header('Content-Length', str(len(sent)))
        self.send_header('Accept-Ranges', 'bytes')
        self.end_headers()
        if with_body and file in self.hub.breaks_off:
            self.hub.breaks_off.discard(file)
            self.wfile.write(sent[: len(sent) // 2])
            self.wfile.flush()
            self.connection.close()
        elif with_body:
            self.wfile.write(sent)


@pytest.fixture
def hub():
    """Serve repositories on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, hub))
    hub.address = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sophgo(tmp_path):
    """Give the folder that the stand-in for Sophgo's servers serves."""
    (tmp_path / 'site' / 'dfss').mkdir(parents=True)
    (tmp_path / 'site' / 'dfss' / '__main__.py').write_text(DFSS)
    served = tmp_path / 'served'
    served.mkdir()
    return served


@pytest.fixture
def fetch(edge_vlm, hub, sophgo, tmp_path):
    """Run `edge-vlm models fetch`."""

    def run(*words, to=tmp_path / 'models', **changes):
        env = {
            **os.environ,
            'DFSS_SERVES': str(sophgo),
            'HF_ENDPOINT': hub.address,
            'HF_HOME': str(tmp_path / 'hf'),
            'HF_HUB_DISABLE_XET': '1',
            'HF_HUB_DISABLE_TELEMETRY': '1',
            'PYTHONPATH': str(tmp_path / 'site'),
            'XDG_DATA_HOME': str(tmp_path / 'data'),
            **changes,
        }
        where = ('--to', to) if to else ()
        return edge_vlm('models', 'fetch', *words, *where, env=env)

    return run


def put_texts(hub, repository, folder=''):
    files = {
        f'{folder}config.json': b'{"model_type": "internvl_chat"}',
        f'{folder}tokenizer.json': b'{}',
        f'{folder}model.safetensors': b'far too much',
    }
    hub.put(repository, **files)
    return files


def put_axmodels(hub, name='internvl3-2b'):
    entry = ALL.find('ax650', name)
    files = put_texts(hub, entry.hub.repository, 'internvl3_2b_tokenizer/')
    for layer in range(entry.layers):
        files[f'internvl3_2b_axmodel/qwen2_p128_l{layer}_together.axmodel'] = b'layer' * 99
    files['internvl3_2b_axmodel/qwen2_post.axmodel'] = b'post'
    files['internvl3_2b_axmodel/model.embed_tokens.weight.bfloat16.bin'] = b'table' * 999
    files['vit_axmodel/internvl3_2b_vit_slim.axmodel'] = b'vit'
    files['examples/red-panda.mp4'] = b'not wanted'
    files['config.json'] = b'{}'
    hub.put(entry.hub.repository, **files)
    return files


def serve_bmodel(sophgo, chip='bm1688', name='internvl3-2b', content=b'weights'):
    file = ALL.find(chip, name).files['model']
    (sophgo / file.path).write_bytes(content)
    return file


def test_a_repository_comes_whole_and_is_found(fetch, hub, tmp_path):
    put_axmodels(hub)
    done = fetch('internvl3-2b', '--chip', 'ax650')
    home = tmp_path / 'models' / 'ax650' / 'internvl3-2b'
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('found internvl3-2b for ax650: 31 files of weights')
    assert str(home) in done.stdout
    assert 'sizes and hashes are right' in done.stderr
    assert (home / 'internvl3_2b_axmodel' / 'qwen2_p128_l27_together.axmodel').is_file()
    assert not (home / 'examples').exists()
    assert f'EDGE_VLM_MODELS={tmp_path / "models"}' in done.stderr


def put_smolvlm(hub, name='smolvlm-256m'):
    entry = ALL.find('cpu', name)
    files = {'config.json': b'{"model_type": "idefics3"}', 'tokenizer.json': b'{}'}
    files['preprocessor_config.json'] = b'{}'
    for file in entry.files.values():
        files[file.path] = b'graph' * 99
        files[file.path.replace('_int8', '_q4')] = b'not wanted'
        files[file.path.replace('_int8', '')] = b'not wanted'
    files['onnx/decoder_model_merged_int8.onnx_data'] = b'weights beside it'
    files['model.safetensors'] = b'far too much'
    hub.put(entry.hub.repository, **files)
    return entry


def test_a_model_of_the_cpu_comes_in_one_variant_with_what_lies_beside_it(fetch, hub, tmp_path):
    entry = put_smolvlm(hub)
    done = fetch('smolvlm-256m', '--chip', 'cpu')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('found smolvlm-256m for cpu: 3 files of weights')
    home = tmp_path / 'models' / 'cpu' / 'smolvlm-256m'
    names = {path.relative_to(home).as_posix() for path in home.rglob('*') if path.is_file()}
    assert {name for name in names if not name.startswith('.cache')} == {
        'config.json',
        'preprocessor_config.json',
        'tokenizer.json',
        'onnx/decoder_model_merged_int8.onnx_data',
        *(file.path for file in entry.files.values()),
    }
    assert any(entry.hub.revision in path for _, path, _ in hub.asked)


def test_what_is_here_already_is_not_fetched_again(fetch, hub):
    put_axmodels(hub)
    assert fetch('internvl3-2b', '--chip', 'ax650').returncode == 0
    hub.asked.clear()
    assert fetch('internvl3-2b', '--chip', 'ax650').returncode == 0
    assert not [path for verb, path, _ in hub.asked if verb == 'GET' and '/resolve/' in path]


def test_a_download_that_broke_off_is_taken_up_where_it_was(fetch, hub):
    name = 'vit_axmodel/internvl3_2b_vit_slim.axmodel'
    # The client writes in pieces of 10 MB; a file that has not got one yet starts again.
    size = 24 << 20
    hub.repositories['AXERA-TECH/InternVL3-2B'] = {**put_axmodels(hub), name: bytes(size)}
    hub.breaks_off.add(name)
    # The client itself takes it up again; where it gives up instead, the next run does.
    done = fetch('internvl3-2b', '--chip', 'ax650')
    if done.returncode:
        done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 0, done.stderr
    (resumed,) = [bytes_ for _, path, bytes_ in hub.asked if path.endswith(name) and bytes_]
    assert 0 < int(resumed.removeprefix('bytes=').split('-')[0]) < size


def test_a_file_that_came_damaged_is_taken_away_and_named(fetch, hub, tmp_path):
    put_axmodels(hub)
    name = 'internvl3_2b_axmodel/qwen2_post.axmodel'
    hub.spoiled.add(name)
    done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 3
    assert f'came damaged and was taken away, fetch again: {name}' in done.stderr
    assert not (tmp_path / 'models' / 'ax650' / 'internvl3-2b' / name).exists()
    hub.spoiled.clear()
    assert fetch('internvl3-2b', '--chip', 'ax650').returncode == 0


def test_a_repository_that_changed_is_named_with_what_it_lacks(fetch, hub):
    put_texts(hub, 'AXERA-TECH/InternVL3-2B', 'other/')
    put_texts(hub, 'OpenGVLab/InternVL3-2B')
    done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 3
    assert 'AXERA-TECH/InternVL3-2B holds no internvl3_2b_axmodel/*' in done.stderr


def test_a_bmodel_comes_from_the_vendor_and_its_tokenizer_from_the_hub(
    fetch, hub, sophgo, tmp_path
):
    file = serve_bmodel(sophgo)
    put_texts(hub, 'OpenGVLab/InternVL3-2B-AWQ')
    done = fetch('internvl3-2b', '--chip', 'bm1688')
    home = tmp_path / 'models' / 'bm1688' / 'internvl3-2b'
    assert done.returncode == 0, done.stderr
    assert (sophgo / 'log').read_text() == f'{file.url}\n'
    assert (home / file.path).read_bytes() == b'weights'
    assert (home / 'tokenizer' / 'config.json').is_file()
    assert not (home / 'tokenizer' / 'model.safetensors').exists()
    assert not (home / '.incoming').exists()
    assert 'dfss python tool' in done.stderr
    assert done.stdout.count('\n') == 1
    again = fetch('internvl3-2b', '--chip', 'bm1688')
    assert again.returncode == 0
    assert 'is here already' in again.stderr
    assert (sophgo / 'log').read_text() == f'{file.url}\n'


def test_without_to_it_goes_where_models_are_looked_for(fetch, hub, sophgo, tmp_path):
    serve_bmodel(sophgo)
    put_texts(hub, 'OpenGVLab/InternVL3-2B-AWQ')
    done = fetch('internvl3-2b', '--chip', 'bm1688', to=None)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / 'data' / 'edge_vlm_ros' / 'models' / 'bm1688') in done.stdout
    assert 'EDGE_VLM_MODELS' not in done.stderr


def pack(path, **members):
    with zipfile.ZipFile(path, 'w') as packed:
        for name, content in members.items():
            packed.writestr(name, content)


TOKENS = {
    'token_configs/config.json': '{"model_type": "mllama"}',
    'token_configs/tokenizer.json': '{}',
    'processor/config.json': '{"wrong": "one"}',
    'read.me': '',
}


def test_a_zip_is_unpacked_and_a_barred_tokenizer_comes_from_the_vendor(
    fetch, hub, sophgo, tmp_path
):
    name = ALL.find('bm1684x', 'llama-3.2-11b-vision').files['model'].path
    pack(sophgo / 'BM1684X.zip', **{f'BM1684X/{name}': 'weights', '../../outside': 'bad'})
    pack(sophgo / 'token_configs.zip', **TOKENS)
    repository = 'meta-llama/Llama-3.2-11B-Vision-Instruct'
    put_texts(hub, repository)
    hub.gated.add(repository)
    done = fetch('llama-3.2-11b-vision')
    home = tmp_path / 'models' / 'bm1684x' / 'llama-3.2-11b-vision'
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in home.iterdir()) == [name, 'tokenizer']
    config = json.loads((home / 'tokenizer' / 'config.json').read_text())
    assert config == {'model_type': 'mllama'}
    assert 'licence has to be accepted' in done.stderr
    assert not list(tmp_path.rglob('outside'))


def test_a_barred_tokenizer_without_another_source_says_what_to_do(fetch, hub, sophgo):
    serve_bmodel(sophgo)
    put_texts(hub, 'OpenGVLab/InternVL3-2B-AWQ')
    hub.gated.add('OpenGVLab/InternVL3-2B-AWQ')
    done = fetch('internvl3-2b', '--chip', 'bm1688')
    assert (done.returncode, done.stdout) == (3, '')
    assert 'HF_TOKEN' in done.stderr


def test_without_a_network_it_says_what_to_copy_where(fetch, hub, tmp_path):
    entry = ALL.find('bm1688', 'internvl3-2b')
    done = fetch('internvl3-2b', '--chip', 'bm1688', HF_ENDPOINT='http://127.0.0.1:9')
    home = tmp_path / 'models' / 'bm1688' / 'internvl3-2b'
    assert (done.returncode, done.stdout) == (3, '')
    file = entry.files['model']
    assert 'dfss ended with 1 and brought no file' in done.stderr
    assert f'{file.url} to {home / file.path}' in done.stderr
    assert f'https://huggingface.co/{entry.tokenizer} to {home / "tokenizer"}' in done.stderr


def test_without_the_vendors_client_it_says_so(fetch, hub, tmp_path):
    done = fetch('internvl3-2b', '--chip', 'bm1688', PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert 'pip install dfss' in done.stderr


def test_what_no_program_can_fetch_is_said_and_found_once_it_is_there(fetch, hub, tmp_path):
    put_texts(hub, 'OpenGVLab/InternVL3-2B')
    done = fetch('internvl3-2b-9groups')
    home = tmp_path / 'models' / 'ax650' / 'internvl3-2b-9groups'
    assert done.returncode == 3
    assert 'pan.baidu.com' in done.stderr
    assert str(home) in done.stderr
    folder = home / 'InternVL3-2B_axmodel_chunk_128'
    folder.mkdir()
    for layer in range(28):
        (folder / f'qwen2_p128_l{layer}_together.axmodel').touch()
    for name in ('qwen2_post.axmodel', 'model.embed_tokens.weight.npy', 'a_vit.axmodel'):
        (folder / name).touch()
    assert fetch('internvl3-2b-9groups').returncode == 0


def test_a_shipped_model_is_found_at_once(fetch, hub):
    done = fetch('demo')
    assert done.returncode == 0
    assert done.stdout.startswith('found demo for cpu')
    assert not hub.asked


@pytest.mark.parametrize(
    ('words', 'code', 'says'),
    [
        (('internvl3-2b',), 2, 'bm1684x, bm1688, ax650: say --chip'),
        (('internvl3-2b', '--chip', 'tpu'), 2, "no chip 'tpu'"),
        (('gpt',), 3, "no model named 'gpt'"),
        (('demo', '--chip', 'ax650'), 3, 'there is one for cpu'),
    ],
)
def test_a_model_that_is_not_there_or_not_one(fetch, words, code, says):
    done = fetch(*words)
    assert (done.returncode, done.stdout) == (code, '')
    assert says in done.stderr


def everything_below(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.mark.parametrize('name', ['../../../mine.json', 'a/../../../../mine.json'])
def test_a_server_that_lists_names_outside_the_folder_touches_no_file(fetch, hub, tmp_path, name):
    mine = tmp_path / 'models' / 'mine.json'
    mine.parent.mkdir()
    mine.write_text('of the user')
    put_axmodels(hub)
    hub.repositories['AXERA-TECH/InternVL3-2B'][name] = b'of the server'
    before = everything_below(tmp_path)
    done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 3
    assert f'names a file {name!r}' in done.stderr
    assert 'nothing was changed' in done.stderr
    assert everything_below(tmp_path) == before
    assert not [path for _, path, _ in hub.asked if '/resolve/' in path]


def test_a_server_whose_second_list_is_another_writes_no_other_file(fetch, hub, tmp_path):
    put_axmodels(hub)
    hub.repositories['AXERA-TECH/InternVL3-2B']['vit_axmodel/*'] = b'a pattern'
    hub.listed_later = {'vit_axmodel/../../../../../mine.axmodel': b'of the server'}
    fetch('internvl3-2b', '--chip', 'ax650')
    assert not list(tmp_path.rglob('mine.axmodel'))


@pytest.mark.parametrize('sha', ['../../../../../mine'])
def test_a_server_whose_commit_is_none_is_refused(fetch, hub, tmp_path, sha):
    put_axmodels(hub)
    hub.sha = sha
    done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 3
    assert 'is no commit; nothing was changed' in done.stderr
    assert not list(tmp_path.rglob('mine'))


def test_a_folder_that_is_a_link_out_of_the_models_folder_is_not_followed(fetch, hub, tmp_path):
    files = put_axmodels(hub)
    mine = tmp_path / 'documents'
    mine.mkdir()
    for name in files:
        (mine / name.rpartition('/')[2]).write_text('of the user')
    home = tmp_path / 'models' / 'ax650' / 'internvl3-2b'
    home.mkdir(parents=True)
    (home / 'vit_axmodel').symlink_to(mine)
    before = everything_below(mine)
    done = fetch('internvl3-2b', '--chip', 'ax650')
    assert done.returncode == 3
    assert 'is a link that leads out of' in done.stderr
    assert everything_below(mine) == before
