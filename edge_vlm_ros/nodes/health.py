"""How a camera does, judged from numbers and from what the graph says: free of ROS."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.nodes.middleware import FAST_DDS_SEGMENT_BYTES, Losses
from edge_vlm_ros.nodes.node_time import LONGEST_LATENCY_NS

QUIET_AFTER_S = 0.8
"""Silence that is worth a warning: with diagnostics once a second, it is reported within 2 s."""

QUIET_PERIODS = 3.0
"""A slow camera may be silent for so many of its periods."""

SETTLE_S = 2.0
"""Time a new subscription has to find its publisher before its rate is judged."""

FREE_OFFSET_S = 1.0
"""Clocks that differ by less are as good as one; so much latency is normal."""

LOST_SHARE = 0.1
"""Of the frames of the last seconds: more lost ones, or more damaged ones, are worth a warning."""

GAPS_SHARE = 0.25
"""The same where only stamps tell it: a camera may skip a frame by itself."""

IMAGE_TYPES = {
    'raw': 'sensor_msgs/msg/Image',
    'compressed': 'sensor_msgs/msg/CompressedImage',
}


@dataclass(frozen=True, slots=True)
class Publisher:
    """Somebody who publishes on a camera's topic, as the graph describes him.

    Attributes:
        message_type: 'sensor_msgs/msg/Image', ...
        is_reliable: He offers reliable delivery; so he does where the graph does not know.
        is_latched: He keeps messages for subscribers that come later (transient local).
    """

    message_type: str = IMAGE_TYPES['raw']
    is_reliable: bool = True
    is_latched: bool = False


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames since the subscription, by what became of them.

    Attributes:
        received: All that arrived.
        lost: Not arrived, as the middleware reports; a loss.
        undecodable: Arrived damaged, or in a form that is not read; a loss.
        late: Arrived after a newer one, or from before a jump of time; a loss.
        replaced: Sent again with the same stamp; the later one is kept.
        skipped: Not kept for clips, as `buffer.fps` says; normal.
        evicted: Kept and pushed out by newer ones; normal.
    """

    received: int = 0
    lost: int = 0
    undecodable: int = 0
    late: int = 0
    replaced: int = 0
    skipped: int = 0
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """One camera in numbers, for diagnostics and for error messages.

    Attributes:
        name: The camera's.
        topic: Fully resolved.
        transport: 'raw' or 'compressed'.
        reliability: What the subscription asks for: 'best_effort' or 'reliable'.
        durability: Likewise: 'volatile' or 'transient_local'.
        min_fps: Fewer frames a second are worth a warning; 0 = any rate will do.
        max_age_s: Older frames are refused where a request says nothing; 0 = none is.
        publishers: On the topic, matching or not.
        incompatible: The QoS policy that kept a publisher from matching; '' = none did.
        fps: Frames that came in the last seconds, a second.
        period_s: Usual time between two frames; 0 = not known.
        age_s: Age of the newest frame that can be shown; 0 = there is none.
        silence_s: Steady time since the last frame, or since the subscription.
        watched_s: Steady time since the subscription.
        counts: Frames since the subscription.
        lost_share: Of the frames of the last seconds, those that the middleware reports lost.
        gaps_share: Of those frames, the ones that are missing between the stamps.
        bad_share: Of those that arrived, the ones that cannot be decoded.
        bad_reason: Why the last frame that came cannot be decoded; '' = it can, or none has come.
        last_bad_reason: Why the last one that cannot be decoded cannot; '' = there was none.
        kept: Frames in the buffer.
        kept_bytes: Their bytes.
        clock_offset_s: How far the camera's clock is ahead of the node's; below 0: it is behind,
            or its frames are late.
        is_simulated: The node's clock is that of a simulator or a bag.
        stood_s: Steady time for which that clock has stood still; 0 = it goes.
        losses: What is known of images that do not arrive.
    """

    name: str
    topic: str
    transport: str = 'raw'
    reliability: str = 'best_effort'
    durability: str = 'volatile'
    min_fps: float = 1.0
    max_age_s: float = 0.0
    publishers: tuple[Publisher, ...] = ()
    incompatible: str = ''
    fps: float = 0.0
    period_s: float = 0.0
    age_s: float = 0.0
    silence_s: float = 0.0
    watched_s: float = 0.0
    counts: FrameCounts = field(default_factory=FrameCounts)
    lost_share: float = 0.0
    gaps_share: float = 0.0
    bad_share: float = 0.0
    bad_reason: str = ''
    last_bad_reason: str = ''
    kept: int = 0
    kept_bytes: int = 0
    clock_offset_s: float = 0.0
    is_simulated: bool = False
    stood_s: float = 0.0
    losses: Losses = field(default_factory=Losses)

    @property
    def problem(self) -> str:
        """What is wrong, for people: what was seen and who can act; '' = all is well."""
        if self._is_kept_picture:
            return self._damaged_picture() or self.clock_problem or self._refusal()
        if self.is_quiet:
            return f'{self._silence()}: {self._cause_of_silence()}'
        return self._damage() or self._scarcity() or self.clock_problem or self._refusal()

    @property
    def is_quiet(self) -> bool:
        """Whether frames have stopped coming, or never came."""
        if not self.counts.received:
            return True
        return self.silence_s > max(QUIET_AFTER_S, QUIET_PERIODS * self.period_s)

    @property
    def is_losing(self) -> bool:
        """Whether frames that were sent do not arrive."""
        return self.lost_share > LOST_SHARE or self.gaps_share > GAPS_SHARE

    @property
    def clock_problem(self) -> str:
        """How the camera's clock and the node's differ, for people; '' = they agree."""
        offset_s = self.clock_offset_s
        if abs(offset_s) <= FREE_OFFSET_S or (self._is_kept_picture and offset_s < 0):
            return ''
        if offset_s > 0:
            return (
                f"the stamps on {self.topic} are {offset_s:.1f} s ahead of the node's clock, so "
                f'ages count from arrival: {self._cause_of_offset()}'
            )
        if offset_s * NS_PER_S < -LONGEST_LATENCY_NS:
            return (
                f"the stamps on {self.topic} are {-offset_s:.1f} s behind the node's clock, so "
                f'ages count from arrival: {self._cause_of_offset()}'
            )
        return (
            f'the images on {self.topic} are {-offset_s:.1f} s old by their stamps when they '
            'come: they are late, or the clock of the camera is behind (synchronise it with the '
            "node's, or raise max_age_s)"
        )

    def _cause_of_offset(self) -> str:
        if self.is_simulated:
            return (
                'the node lives in simulated time and the camera in another, such as the time of '
                'day (set use_sim_time for both or for none)'
            )
        if self.clock_offset_s < 0:
            return (
                'camera and node go by different clocks (one that was never set; a bag or a '
                'simulator, where the node wants use_sim_time)'
            )
        return 'camera and node go by different clocks (synchronise them: NTP, PTP)'

    def _silence(self) -> str:
        if not self.counts.received:
            return f'no image has come on {self.topic}'
        return f'no image has come on {self.topic} for {self.silence_s:.1f} s'

    def _cause_of_silence(self) -> str:
        return (
            self._standstill()
            or self._desertion()
            or self._type_mismatch()
            or self._qos_mismatch()
            or self._latched()
            or self._blockade()
        )

    def _damage(self) -> str:
        if self.bad_share <= LOST_SHARE:
            return ''
        return (
            f'{self.bad_share:.0%} of the images on {self.topic} cannot be decoded: '
            f'{self.last_bad_reason}'
        )

    def _damaged_picture(self) -> str:
        if not self.bad_reason:
            return ''
        return f'the picture on {self.topic} cannot be decoded: {self.bad_reason}'

    def _scarcity(self) -> str:
        if self.watched_s > SETTLE_S and self.fps < self.min_fps:
            if self._is_starved:
                cause = f'somebody publishes there, but almost nothing arrives. {self._advice}'
            else:
                cause = (
                    'its publisher sends no more, as far as can be seen (parameter '
                    f'cameras.{self.name}.min_fps)'
                )
            return f'only {self.fps:.1f} frames a second come on {self.topic}: {cause}'
        if self.is_losing:
            return (
                f'about {max(self.lost_share, self.gaps_share):.0%} of the images on {self.topic} '
                f'are lost, {self.fps:.1f} a second arrive. {self._advice}'
            )
        return ''

    def _refusal(self) -> str:
        """Say that every question is refused whatever else is well, if that is so."""
        if self._is_kept_picture and 0 < self.max_age_s < self.age_s:
            return (
                f'the picture on {self.topic} is {self.age_s:.1f} s old, its publisher keeps it '
                f'and sends no other, and max_age_s is {self.max_age_s:.1f}: questions that say '
                'nothing of max_age_s are refused'
            )
        oldest_s = self.age_s - self.silence_s
        if self._is_kept_picture or not 0 < self.max_age_s < oldest_s:
            return ''
        return (
            f'the frames on {self.topic} are {oldest_s:.1f} s old when they come, and max_age_s '
            f'is {self.max_age_s:.1f}: questions are refused'
        )

    def _standstill(self) -> str:
        if not self.stood_s:
            return ''
        return (
            f'simulated time has stood still for {self.stood_s:.1f} s, too (is the bag or the '
            'simulator paused, or gone?)'
        )

    def _desertion(self) -> str:
        if self.publishers:
            return ''
        if self.counts.received:
            return 'nobody publishes there any more (did the camera stop?)'
        return 'nobody publishes there (is the camera on, and its topic this one?)'

    def _blockade(self) -> str:
        """Say why nothing comes of a publisher that fits."""
        if not self.counts.received and self.watched_s <= SETTLE_S:
            return 'its publisher has just been found'
        if not self.counts.received:
            return f'somebody publishes there, but nothing arrives. {self._advice}'
        if self._is_starved:
            return f'somebody publishes there, but almost nothing arrives. {self._advice}'
        return 'its publisher is there and has stopped sending (a camera that hangs or is paused)'

    @property
    def _advice(self) -> str:
        return self.losses.advice

    @property
    def _is_starved(self) -> bool:
        """Whether large images come now and then only, which is how Fast DDS loses them."""
        is_large = self.losses.is_raw and self.losses.largest_bytes > FAST_DDS_SEGMENT_BYTES
        return self.is_losing or (is_large and self.counts.received < self.watched_s)

    @property
    def _fitting(self) -> list[Publisher]:
        wanted = IMAGE_TYPES[self.transport]
        return [publisher for publisher in self.publishers if publisher.message_type == wanted]

    def _type_mismatch(self) -> str:
        wanted = IMAGE_TYPES[self.transport]
        found = sorted({publisher.message_type for publisher in self.publishers})
        if wanted in found:
            return ''
        what = f'what is published there is {" and ".join(found)}, not {wanted}'
        other = 'compressed' if self.transport == 'raw' else 'raw'
        if IMAGE_TYPES[other] in found:
            return (
                f'{what} (set cameras.{self.name}.transport to {other}, or cameras.{self.name}'
                f'.topic to the topic of the {self.transport} images)'
            )
        return f'{what} (is cameras.{self.name}.topic the right one?)'

    def _qos_mismatch(self) -> str:
        policy = self.incompatible if not self.counts.received else ''
        if self._is_latched_asked and not any(p.is_latched for p in self._fitting):
            policy = 'durability'
        if self.reliability == 'reliable' and not any(p.is_reliable for p in self._fitting):
            policy = 'reliability'
        if not policy:
            return ''
        return f'its publisher offers another {policy} than {self.asked(policy)}'

    def asked(self, policy: str) -> str:
        """Say what is asked for of a QoS policy, and by which parameter, if there is one."""
        value = {'reliability': self.reliability, 'durability': self.durability}.get(policy)
        if value is None:
            return 'is asked for'
        return f'the {value} asked for (parameter cameras.{self.name}.qos.{policy})'

    @property
    def _is_latched_asked(self) -> bool:
        return self.durability == 'transient_local'

    @property
    def _is_kept_picture(self) -> bool:
        """Whether what is shown is a picture that its publisher keeps, as was asked for."""
        is_kept = bool(self._fitting) and all(each.is_latched for each in self._fitting)
        return self._is_latched_asked and is_kept and self.counts.received > 0 and self.is_quiet

    def _latched(self) -> str:
        if self._is_latched_asked or not all(each.is_latched for each in self._fitting):
            return ''
        if self.counts.received:
            return (
                'its publisher sends a picture once and keeps it for late subscribers (transient '
                'local); max_age_s says how old it may be'
            )
        return (
            'its publisher keeps a picture for late subscribers (transient local) that was sent '
            'before this node subscribed, and this subscription takes what is sent now: set '
            f'cameras.{self.name}.qos.durability to transient_local, or have it publish again'
        )
