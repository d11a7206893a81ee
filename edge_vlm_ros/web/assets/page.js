// The page of one robot. What the robot, its model and other people say is foreign text: it becomes
// text nodes, never markup. Nothing is fetched from elsewhere.
'use strict';

const MOST_ANSWERS = 20, MOST_EVENTS = 30, MOST_OTHERS = 12;
const SILENT_S = 2;  // a picture older than this is not live
const STAGES = [
  ['queue_s', 'waiting'], ['decode_images_s', 'images'], ['encode_s', 'vision tower'],
  ['prefill_s', 'prefill'], ['decode_s', 'decode'],
];
const EVENT_KINDS = { 1: 'begins', 2: 'ends', 3: 'still on', 4: 'blind', 5: 'sees again' };
const WATCH_STATES = { 1: 'armed', 2: 'looking', 3: 'event on', 4: 'unsure', 5: 'blind', 6: 'off' };
const WATCH_LEVELS = { 1: 'ok', 2: 'ok', 3: 'busy', 4: 'busy', 5: 'bad', 6: '' };

const $ = id => document.getElementById(id);
const now = () => performance.now() / 1000;

function el(tag, name = '', text = '', ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== '') made.textContent = text;
  made.append(...children);
  return made;
}

const clock = stamp => new Date(stamp ? stamp.sec * 1000 + stamp.nanosec / 1e6 : Date.now())
  .toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const seconds = s => s < 0.0995 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(s < 9.95 ? 2 : 1)} s`;
const percent = p => p === null || p === undefined ? '' : ` ${Math.round(p * 100)} %`;
const trim = (list, most) => { while (list.children.length > most) list.lastChild.remove(); };

// --- the connection ---------------------------------------------------------------------------------

let socket = null, retry_s = 0.5, hello = { read_only: false, most_open: 4, question_chars: 4000 };

function connect() {
  const made = socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/socket`);
  let was_open = false;
  made.onopen = () => { was_open = true; retry_s = 0.5; banner(''); look(); };
  made.onmessage = event => {
    const message = JSON.parse(event.data);
    (HEARD[message.kind] || (() => {}))(message);
  };
  made.onclose = () => {
    end_open('The connection to the page was lost.');
    show_state('not connected', 'bad');
    explain(was_open);
    setTimeout(connect, retry_s * 1000);
    retry_s = Math.min(retry_s * 2, 5);
  };
}

async function explain(was_open) {
  let status = 0;
  try { status = was_open ? 0 : (await fetch('/page.js', { cache: 'no-store' })).status; } catch { /* not there */ }
  banner(status === 401 ? 'The token is another one now: open the address that was printed at the start.'
    : status === 503 || status === 200 ? 'Too many pages of this robot are open. Trying again …'
    : 'The connection is lost. Trying again …');
}

function say(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function banner(text) { $('banner').hidden = !text; $('banner').textContent = text; }

// --- state ------------------------------------------------------------------------------------------

function show_state(text, level) {
  $('state-text').textContent = text;
  $('state').dataset.level = level;
}

function hear_state({ text, is_there }) {
  const word = text.split(':')[0];
  const level = !is_there || ['failed', 'unreachable', 'finalized', 'unconfigured'].includes(word) ? 'bad'
    : word === 'ready' ? 'ok' : 'busy';
  show_state(text || 'connecting', level);
}

// --- cameras ----------------------------------------------------------------------------------------

const cameras = { all: [], shown: '', about: new Set(), feeds: new Map(), count: 0, began: 0 };

function hear_facts(facts) {
  $('robot').textContent = facts.name || 'the robot';
  if (JSON.stringify(facts.cameras) !== JSON.stringify(cameras.all)) {
    cameras.all = facts.cameras;
    const names = cameras.all.map(camera => camera.name);
    if (!names.includes(cameras.shown)) cameras.shown = names[0] || '';
    cameras.about = new Set([...cameras.about].filter(name => names.includes(name)));
    if (!cameras.about.size && cameras.shown) cameras.about.add(cameras.shown);
    draw_cameras();
    show_camera();
  }
  $('presets').replaceChildren(...facts.presets.filter(preset => preset.question).map(preset => {
    const button = el('button', '', preset.name);
    button.type = 'button';
    button.title = preset.question;
    button.onclick = () => { $('question').value = preset.question; ask(); };
    return button;
  }));
}

function draw_cameras() {
  const one = cameras.all.length < 2;
  $('tabs').hidden = $('about-field').hidden = one;
  const button = (name, is_on, click) => {
    const made = el('button', '', name);
    made.type = 'button';
    made.setAttribute('aria-pressed', is_on);
    made.onclick = click;
    return made;
  };
  $('tabs').replaceChildren(...cameras.all.map(({ name }) => button(name, name === cameras.shown, () => {
    if (cameras.about.size === 1 && cameras.about.has(cameras.shown)) cameras.about = new Set([name]);
    cameras.shown = name;
    draw_cameras();
    show_camera();
  })));
  $('about').replaceChildren(...cameras.all.map(({ name }) => button(name, cameras.about.has(name), () => {
    if (cameras.about.has(name) && cameras.about.size > 1) cameras.about.delete(name); else cameras.about.add(name);
    draw_cameras();
    look();
  })));
}

function look() {
  const names = document.hidden ? [] : [...new Set([cameras.shown, ...cameras.about])].filter(Boolean);
  for (const name of cameras.feeds.keys()) if (!names.includes(name)) cameras.feeds.delete(name);
  say({ kind: 'look', cameras: names });
}

function show_camera() {
  const live = $('live');
  look();
  cameras.began = now();
  if (!cameras.shown || document.hidden) {
    live.removeAttribute('src');
    live.hidden = true;
  } else {
    live.hidden = false;
    live.alt = `Live picture of camera ${cameras.shown}`;
    live.src = `/camera/${encodeURIComponent(cameras.shown)}?n=${++cameras.count}`;
  }
  draw_feed();
}

function draw_feed() {
  const camera = cameras.all.find(({ name }) => name === cameras.shown);
  const feed = cameras.feeds.get(cameras.shown);
  const silence = feed ? feed.silence_s : null;
  $('blank').hidden = silence !== null && silence < SILENT_S;
  $('blank').textContent = !camera ? 'no camera yet'
    : silence === null ? 'waiting for the first picture' : `no picture for ${silence.toFixed(0)} s`;
  const live = $('live');
  if (live.naturalWidth) $('view').style.aspectRatio = Math.min(2, Math.max(1, live.naturalWidth / live.naturalHeight));
  live.style.opacity = silence !== null && silence >= SILENT_S ? 0.45 : 1;
  const rate = feed && feed.fps !== undefined ? ` · ${feed.fps.toFixed(0)} pictures a second` : '';
  $('camera-facts').textContent = camera ? `${camera.name} · ${camera.transport} ${camera.topic}${rate}` : '';
}

function hear_feeds({ feeds }) {
  const before = cameras.feeds, at = now();
  cameras.feeds = new Map(feeds.map(feed => {
    const old = before.get(feed.name);
    const fps = old && feed.pictures >= old.pictures ? (feed.pictures - old.pictures) / (at - old.at) : undefined;
    return [feed.name, { ...feed, at, fps }];
  }));
  draw_feed();
}

$('live').onerror = () => { if ($('live').hasAttribute('src')) setTimeout(show_camera, 1000); };
document.addEventListener('visibilitychange', show_camera);

// --- questions --------------------------------------------------------------------------------------

const open = new Map();  // our name of a question: its card and its parts
let asked = 0, session = '';
const new_session = () => `page-${Array.from(crypto.getRandomValues(new Uint8Array(4)), b => b.toString(16).padStart(2, '0')).join('')}`;

function wanted_choices() {
  const form = $('form').value;
  if (form === 'yes-no') return ['yes', 'no'];
  return form === 'choices' ? $('choices').value.split(',').map(text => text.trim()).filter(Boolean) : [];
}

function ask() {
  const question = $('question').value.trim();
  if (hello.read_only) return;
  if (!question) { $('question').focus(); return; }
  if (open.size >= hello.most_open) { $('ask-note').textContent = `${open.size} questions are open already`; return; }
  if ($('talk').value === 'session' && !session) session = new_session();
  const id = `q${++asked}`;
  make_card(id, question);
  say({
    kind: 'ask', id, question, cameras: [...cameras.about], last_seconds: Number($('seconds').value),
    choices: wanted_choices(), session: $('talk').value === 'session' ? session : '',
  });
  if (!socket || socket.readyState !== WebSocket.OPEN) end_open('The page is not connected.');
  $('question').select();
}

function make_card(id, question) {
  const said = el('p', 'said'), note = el('p', 'note', 'waiting …'), actions = el('div', 'actions');
  const card = el('article', 'card answer', '', el('p', 'asked', question), said, note, actions);
  const cancel = el('button', '', 'Cancel');
  cancel.type = 'button';
  cancel.onclick = () => { cancel.disabled = true; say({ kind: 'cancel', id }); };
  actions.append(cancel);
  card.dataset.open = '';
  card.dataset.question = id;
  $('answers').prepend(card);
  trim($('answers'), MOST_ANSWERS);
  open.set(id, { card, said, note, actions, began: now() });
  draw_ask();
}

function draw_ask() {
  $('ask-note').textContent = open.size ? `${open.size === 1 ? 'one question is' : `${open.size} questions are`} open · Esc cancels` : '';
}

function finish(id) {
  const parts = open.get(id);
  open.delete(id);
  if (parts) {
    delete parts.card.dataset.open;
    parts.note.textContent = '';
    parts.actions.replaceChildren();
  }
  draw_ask();
  return parts;
}

function fail(parts, message, code, name) {
  const said = message ? `${message[0].toUpperCase()}${message.slice(1)}` : 'It failed.';
  parts.said.after(el('p', 'failed', `${said}${/[.!?]$/.test(said) ? '' : '.'} `, el('code', '', `${name} (${code})`)));
  parts.said.hidden = !parts.said.textContent;
}

function end_open(message) {
  for (const id of [...open.keys()]) fail(finish(id), message, 0, 'NOT_CONNECTED');
}

function hear_delta({ id, delta }) {
  const parts = open.get(id);
  if (!parts) return;
  parts.note.textContent = '';
  parts.said.append(delta);
}

function hear_error({ id, message, error_code, error_code_name }) {
  const parts = id && finish(id);
  if (parts) fail(parts, message, error_code, error_code_name);
  else $('ask-note').textContent = `${message} (${error_code_name}, ${error_code})`;
}

function hear_answer({ id, number, answer, pictures }) {
  const parts = finish(id);
  if (!parts) return;
  parts.said.textContent = answer.text;
  if (answer.error_code) fail(parts, answer.message, answer.error_code, answer.error_code_name);
  else {
    parts.note.textContent = answer.message;
    const sure = percent(answer.choice_probability).trim();
    const tag = answer.choice === answer.text ? sure : `${answer.choice} ${sure}`;
    if (answer.choice && tag.trim()) parts.said.append(' ', el('span', 'tag', tag.trim()));
  }
  parts.note.before(...frames_of(number, answer, pictures), ...cost_of(answer));
  const again = el('button', '', 'Ask again');
  again.type = 'button';
  const question = parts.card.firstChild.textContent;
  again.onclick = () => { $('question').value = question; ask(); };
  if (!hello.read_only) parts.actions.append(again);
  const keep = el('a', 'button', 'Keep as replay case');
  keep.href = `/case/${number}.zip`;
  keep.download = `case-${number}.zip`;
  keep.title = 'The frames, the question and the answer, as edge-vlm replay reads them';
  if (pictures.some(picture => picture.kept)) parts.actions.append(keep);
}

function frames_of(number, answer, pictures) {
  if (!answer.frames.length) return [];
  const made = answer.frames.map((frame, index) => {
    const picture = pictures[index] || { kept: false };
    const what = picture.kept ? el('img') : el('div', 'lost', 'not kept');
    if (picture.kept) {
      what.src = `/picture/${number}/${index}`;
      what.alt = `Frame ${index + 1} of camera ${frame.camera}`;
      what.loading = 'lazy';
    }
    if (frame.width && frame.height) what.style.aspectRatio = `${frame.width} / ${frame.height}`;
    const caption = el('figcaption', '', '', el('b', '', `${seconds(frame.age_s)} old`));
    if (cameras.all.length > 1) caption.append(` · ${frame.camera}`);
    if (picture.kept && picture.offset_s) {
      caption.append(` · shown is its neighbour, ${seconds(Math.abs(picture.offset_s))} ${picture.offset_s > 0 ? 'later' : 'earlier'}`);
    }
    const places = picture.kept ? (answer.detections || []).filter(place => place.frame === index) : [];
    const figure = el('figure', '', '', el('div', 'shot', '', what, ...places.map(place => place_on(frame, place))), caption);
    figure.title = `camera ${frame.camera}, ${frame.width}×${frame.height} px, taken at ${clock(frame.header.stamp)}`;
    return figure;
  });
  return [el('div', `frames${made.length === 1 ? ' one' : ''}`, '', ...made)];
}

// A box or a point that the model named, in the frame's pixels.
function place_on(frame, { label, x, y, width, height }) {
  const mark = el('span', width && height ? 'box' : 'point', '', el('span', '', label));
  mark.style.left = `${100 * x / frame.width}%`;
  mark.style.top = `${100 * y / frame.height}%`;
  mark.style.width = `${100 * width / frame.width}%`;
  mark.style.height = `${100 * height / frame.height}%`;
  return mark;
}

function cost_of(answer) {
  const stats = answer.stats, total = stats.total_s;
  if (!(total > 0)) return [];
  const stages = STAGES.map(([field, name], index) => [name, stats[field], index]);
  const rest = total - stages.reduce((sum, [, s]) => sum + s, 0);
  if (rest > 0.02 * total) stages.push(['other', rest, 5]);
  const shown = stages.filter(([, s]) => s > 0.0005);
  const bar = el('div', 'bar'), legend = el('div', 'legend');
  bar.setAttribute('role', 'img');
  bar.setAttribute('aria-label', shown.map(([name, s]) => `${name} ${seconds(s)}`).join(', '));
  for (const [name, s, index] of shown) {
    const piece = el('span', `c${index}`);
    piece.style.flexGrow = s / total;
    bar.append(piece);
    legend.append(el('span', `c${index}`, `${name} ${seconds(s)}`));
  }
  const facts = [`${seconds(total)} in all`];
  if (stats.time_to_first_token_s > 0) facts.push(`first word after ${seconds(stats.time_to_first_token_s)}`);
  if (stats.tokens_per_second > 0) facts.push(`${stats.tokens_per_second.toFixed(0)} tokens a second`);
  if (stats.prompt_tokens) facts.push(`${stats.cached_prompt_tokens} of ${stats.prompt_tokens} prompt tokens were there`);
  if (answer.model) facts.push(`${answer.model} on ${answer.chip}`);
  return [bar, legend, el('p', 'quiet', facts.join(' · '))];
}

$('ask').onsubmit = event => { event.preventDefault(); ask(); };
$('question').onkeydown = event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
};
$('form').onchange = () => { $('choices-field').hidden = $('form').value !== 'choices'; if (!$('choices-field').hidden) $('choices').focus(); };
$('talk').onchange = () => { $('forget').hidden = $('talk').value !== 'session'; };
$('forget').onclick = () => {
  if (session) say({ kind: 'reset', session });
  session = '';
  $('ask-note').textContent = 'forgotten: the next question begins a new conversation';
};
document.addEventListener('keydown', event => {
  const typing = event.target.matches('input, textarea, select');
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $('question').focus(); }
  if (event.key === 'Escape' && open.size) say({ kind: 'cancel', id: [...open.keys()].pop() });
});

// --- watches, others, diagnostics -------------------------------------------------------------------

function hear_watches({ watches }) {
  $('watches').replaceChildren(...(watches.length ? watches.map(watch_row) : [el('li', 'quiet', 'none is set')]));
}

function watch_row(watch) {
  const dot = el('span', 'dot'), state = WATCH_STATES[watch.state] || String(watch.state);
  const row = el('div', 'row', '', dot, el('b', '', watch.spec.name), el('span', 'tag', state),
    el('span', 'end', watch.verdict ? `${watch.verdict}${percent(watch.probability)}` : ''));
  row.dataset.level = WATCH_LEVELS[watch.state] || '';
  const facts = [`${watch.looks} ${watch.looks === 1 ? 'look' : 'looks'}`, `${watch.unchanged} unchanged`,
    `${watch.events} ${watch.events === 1 ? 'event' : 'events'}`];
  if (watch.missed_share > 0) facts.push(`${Math.round(watch.missed_share * 100)} % missed`);
  const about = el('div', 'quiet', `${watch.spec.question} · ${facts.join(', ')}`);
  return el('li', '', '', row, about, ...(watch.message ? [el('div', 'quiet', watch.message)] : []));
}

function hear_event({ event }) {
  $('events-title').hidden = false;
  const kind = EVENT_KINDS[event.kind] || String(event.kind), tag = el('span', 'tag', kind);
  if (event.kind === 4) tag.dataset.level = 'bad';
  const row = el('div', 'row', '', el('b', '', event.watch), tag, el('span', 'end', clock(event.decided)));
  const sure = event.verdict && event.probability !== null ? ` (${percent(event.probability).trim()})` : '';
  $('events').prepend(el('li', '', '', row, el('div', 'quiet', `${event.text || event.question}${sure}`)));
  trim($('events'), MOST_EVENTS);
}

const others = new Map();

function hear_overheard(chunk) {
  let row = others.get(chunk.request_id);
  if (!row) {
    const said = el('div', 'said-by-others'), end = el('span', 'end', '…');
    const name = el('span', 'quiet', chunk.request_id);
    const item = el('li', '', '', el('div', 'row', '', name, end), said);
    row = { item, said, end };
    others.set(chunk.request_id, row);
    $('others-none')?.remove();
    $('others').prepend(item);
    trim($('others'), MOST_OTHERS);
    while (others.size > 4 * MOST_OTHERS) others.delete(others.keys().next().value);
  }
  if (chunk.question) row.item.firstChild.firstChild.textContent = chunk.question;
  row.said.append(chunk.delta);
  if (!chunk.done) return;
  row.end.textContent = `${clock()} · ${seconds(chunk.total_s)}`;
  if (chunk.error_code) row.said.append(el('div', 'failed', `${chunk.message} `, el('code', '', `${chunk.error_code_name} (${chunk.error_code})`)));
  others.delete(chunk.request_id);
}

function hear_diagnostics({ parts }) {
  const bad = parts.filter(part => part.level > 0), queue = parts.find(part => part.name === 'queue');
  $('diagnostics-sum').textContent = bad.length ? bad.map(part => `${part.name}: ${part.message}`).join(' · ')
    : queue ? queue.message : 'all is well';
  if (!$('diagnostics').open) { last_parts = parts; return; }
  draw_parts(parts);
}

let last_parts = [];

function draw_parts(parts) {
  $('parts').replaceChildren(...parts.map(part => {
    const row = el('div', 'row', '', el('span', 'dot'), el('b', '', part.name));
    row.dataset.level = ['ok', 'busy', 'bad', 'bad'][part.level] || '';
    const values = el('dl');
    for (const [key, value] of Object.entries(part.values)) values.append(el('dt', '', key), el('dd', '', value));
    return el('section', '', '', row, el('div', 'quiet', part.message), values);
  }));
}

$('diagnostics').ontoggle = () => { if ($('diagnostics').open) draw_parts(last_parts); };

// --- all together -----------------------------------------------------------------------------------

const HEARD = {
  hello: message => {
    hello = message;
    $('ask').hidden = message.read_only;
    $('question').maxLength = message.question_chars;
    $('events').replaceChildren();
  },
  facts: hear_facts, state: hear_state, feeds: hear_feeds, delta: hear_delta, answer: hear_answer, error: hear_error,
  watches: hear_watches, event: hear_event, overheard: hear_overheard, diagnostics: hear_diagnostics,
};

// The token is in a cookie by now; in the address it would end up in histories and screenshots.
if (location.search) history.replaceState(null, '', location.pathname);
hear_watches({ watches: [] });
$('others').append(Object.assign(el('li', 'quiet', 'nobody, since this page is open'), { id: 'others-none' }));
connect();
