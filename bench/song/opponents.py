"""Published online spectrogram inversions, from their equations, for comparison.

All work in the online frame of RTISI-LA and of Peer, Welker, Kolhoff and Gerkmann
(2024, "A flexible online framework for projection-based STFT phase retrieval", ICASSP,
arXiv 2309.07043): samples that were output never change, and an algorithm of
projections runs on the newest frames. With S the wanted magnitudes, P_A(x) replaces
the magnitudes of x by S, and P_C(x) is the transform of the overlap-added signal of
x after the fixed past. Of the frame that is output, P_A of the last iterate sounds.

* gla: x = P_C P_A x (Griffin and Lim 1984; in this frame it is RTISI-LA).
* fgla: y' = P_C P_A x; x = y' + a (y' - y) (Perraudin, Balazs, Sondergaard 2013).
* agla: t' = (1 - g) d + g P_C P_A x; x = t' + a (t' - t); d = t' + b (t' - t) (Nenov,
  Nguyen, Balazs and Bot 2023, arXiv 2306.12504).
* raar: x = b/2 (R_C R_A x + x) + (1 - b) P_A x with R = 2 P - 1 (Luke 2005; Peer,
  Welker and Gerkmann 2022, "Beyond Griffin-Lim").
* dm: x = x + b (P_C((1 + 1/b) P_A x - x/b) - P_A((1 - 1/b) P_C x + x/b)), the
  difference map (Elser 2003; Peer, Welker and Gerkmann 2022): two P_C an iteration.
* admm: x = P_A(z - u); z = (a P_C(x + u) + x + u) / (1 + a); u = u + x - z (Masuyama,
  Yatabe and Oikawa 2019, "Griffin-Lim like phase recovery via ADMM").

`HeapIntegration` is RTPGHI (Prusa and Sondergaard 2016, "Real-time spectrogram
inversion using phase gradient heap integration", DAFx), which iterates nothing.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Projection = Callable[[Array], Array]
_TINY = 1e-12
# gamma = 0.25645 length^2 for a Hann window (the first source of RTPGHI, table 1).
HANN_GAMMA = 0.25645


@dataclass(frozen=True)
class Rule:
    """An algorithm of projections, its parameters and what the newest frame starts at.

    Parameters
    ----------
    name : str
        ``gla``, ``fgla``, ``agla``, ``raar``, ``dm`` or ``admm``.
    iterations : int
        Per frame.
    a, b, g : float
        Parameters of the table above (`admm`: ``a`` is rho).
    start : str
        Phases of a new frame: ``overlap`` (those of the signal that overlaps with it)
        or ``gradient`` (those of RTPGHI).
    """

    name: str
    iterations: int
    a: float = 0.0
    b: float = 0.0
    g: float = 1.0
    start: str = "overlap"


class OnlineInversion:
    """Invert a magnitude spectrogram frame by frame with a rule.

    Parameters
    ----------
    window : float64[frame_length]
        Window of analysis and synthesis.
    hop_length, look_ahead : int
        Samples between frames; frames held beyond the one that is output next.
    rule : Rule
    """

    def __init__(
        self, window: Array, hop_length: int, look_ahead: int, rule: Rule
    ) -> None:
        self._window = window.astype(np.float32)
        self._length, self._hop = len(window), hop_length
        self._held, self._rule = look_ahead + 1, rule
        self._parts = -(-self._length // hop_length)
        self._n_bins = self._length // 2 + 1
        squares = np.zeros(self._parts * hop_length)
        squares[: self._length] = window**2
        cover = squares.reshape(self._parts, hop_length)
        full = cover.sum(axis=0)
        n_parts = self._held + self._parts - 1
        sums = np.zeros((n_parts, hop_length))
        for frame in range(1 - self._parts, self._held):
            for part in range(max(0, -frame), self._parts):
                sums[frame + part] += cover[part]
        self._scale = (1 / full).astype(np.float32)
        self._local = (1 / np.maximum(sums, 1e-3 * full.max())).astype(np.float32)
        self._fixed = np.zeros((n_parts, hop_length), np.float32)
        self._wanted = np.zeros((self._held, self._n_bins), np.float32)
        self._state = [self._empty() for _ in range(3)]
        angle = 2 * np.pi * np.random.default_rng(1).random(self._n_bins)
        angle[[0, -1]] = 0
        self._seed = (1e-6 * np.exp(1j * angle)).astype(np.complex64)
        self._gradient = HeapIntegration(window, hop_length, is_causal=True)
        self._n_frames = 0

    def _empty(self) -> Array:
        return np.zeros((self._held, self._n_bins), np.complex64)

    def push(self, magnitudes: Array) -> Array:
        """Add a frame; return the next samples, none before the look-ahead."""
        self._wanted = np.roll(self._wanted, -1, axis=0)
        self._wanted[-1] = magnitudes
        for rows in self._state:
            rows[:-1] = rows[1:]
            rows[-1] = 0
        self._start()
        RULES[self._rule.name](self)
        return self._emit()

    def _start(self) -> None:
        """Give the newest frame the phases it starts at."""
        before = self.on_magnitudes(self._state[0])
        before[-1] = 0
        begun = self.consistent(before)[-1] + self._seed
        if self._rule.start == "gradient":
            # Of a sequence's first frames nothing is known: their seed decides.
            known = before[-2] if self._held > 1 else self._last
            phases = self._gradient.phases(self._wanted[-1], np.angle(known))
            begun = self._wanted[-1] * np.exp(1j * phases)
        for rows in self._state[:2]:
            rows[-1] = begun
        self._state[2][-1] = 0 if self._rule.name == "admm" else begun

    def _emit(self) -> Array:
        final = self.on_magnitudes(self._state[0])
        pieces = self._pieces(final)
        self._last = final[0]
        self._n_frames += 1
        if self._n_frames < self._held:
            return np.empty(0, np.float32)
        out = (self._fixed[0] + pieces[0, 0]) * self._scale
        self._fixed[: self._parts] += pieces[0]
        self._fixed = np.roll(self._fixed, -1, axis=0)
        self._fixed[-1] = 0
        return out

    def _pieces(self, spectra: Array) -> Array:
        time = np.fft.irfft(spectra, self._length, axis=-1)
        pieces = np.zeros((self._held, self._parts * self._hop), np.float32)
        pieces[:, : self._length] = time * self._window
        return pieces.reshape(self._held, self._parts, self._hop)

    def on_magnitudes(self, x: Array) -> Array:
        """Return P_A(x)."""
        return x * (self._wanted / (np.abs(x) + _TINY))

    def consistent(self, x: Array) -> Array:
        """Return P_C(x)."""
        signal = self._fixed.copy()
        pieces = self._pieces(x)
        for part in range(self._parts):
            signal[part : part + self._held] += pieces[:, part]
        signal *= self._local
        frames = np.lib.stride_tricks.sliding_window_view(signal.ravel(), self._length)
        return np.fft.rfft(frames[:: self._hop][: self._held] * self._window)

    def flush(self) -> Array:
        """Return the samples of the frames that are held."""
        signal = self._fixed.copy()
        empty = self._empty()
        empty[: self._held - 1] = self.on_magnitudes(self._state[0])[1:]
        pieces = self._pieces(empty)
        for part in range(self._parts):
            signal[part : part + self._held] += pieces[:, part]
        n_samples = (self._held - 1) * self._hop + self._length - self._hop
        return (signal * self._scale).ravel()[:n_samples]

    def _gla(self) -> None:
        for _ in range(self._rule.iterations):
            self._state[0] = self.consistent(self.on_magnitudes(self._state[0]))

    def _fgla(self) -> None:
        x, y, _ = self._state
        for number in range(self._rule.iterations):
            new = self.consistent(self.on_magnitudes(x))
            if number == 0:
                y[-1] = new[-1]
            x, y = new + self._rule.a * (new - y), new
        self._state[:2] = [x, y]

    def _agla(self) -> None:
        rule, (x, t, d) = self._rule, self._state
        for number in range(rule.iterations):
            new = (1 - rule.g) * d + rule.g * self.consistent(self.on_magnitudes(x))
            if number == 0:
                t[-1] = new[-1]
            x, d, t = new + rule.a * (new - t), new + rule.b * (new - t), new
        self._state = [x, t, d]

    def _raar(self) -> None:
        b, x = self._rule.b, self._state[0]
        for _ in range(self._rule.iterations):
            on = self.on_magnitudes(x)
            mirrored = 2 * on - x
            both = 2 * self.consistent(mirrored) - mirrored
            x = b / 2 * (both + x) + (1 - b) * on
        self._state[0] = x

    def _dm(self) -> None:
        b, x = self._rule.b, self._state[0]
        for _ in range(self._rule.iterations):
            of_a = (1 + 1 / b) * self.on_magnitudes(x) - x / b
            of_c = x if b == 1 else (1 - 1 / b) * self.consistent(x) + x / b
            x = x + b * (self.consistent(of_a) - self.on_magnitudes(of_c))
        self._state[0] = x

    def _admm(self) -> None:
        """Iterate the row `admm` of the table."""
        rho = self._rule.a
        _, z, u = self._state
        for _ in range(self._rule.iterations):
            x = self.on_magnitudes(z - u)
            lifted = x + u
            z = (rho * self.consistent(lifted) + lifted) / (1 + rho)
            u = lifted - z
        self._state = [z - u, z, u]


RULES: dict[str, Callable[[OnlineInversion], None]] = {
    name: getattr(OnlineInversion, f"_{name}")
    for name in ("gla", "fgla", "agla", "raar", "dm", "admm")
}


class HeapIntegration:
    """RTPGHI: phases by integration of their gradient, largest magnitude first.

    The gradient follows from the logarithm s of the magnitudes, as if the window were
    Gaussian (Prusa and Sondergaard 2016): over a hop the phase of bin m grows by
    2 pi a m / M + a M / gamma ds/dm, over a bin by -gamma / (a M) ds/dn (a: hop, M:
    length of the transform). From the bins of the frame before and of this one, the
    largest goes on first. The causal form takes ds/dn backwards, the other one
    centrally, one frame later. Bins below `tolerance` of the largest get random phases.

    Parameters
    ----------
    window : float64[frame_length]
        A Hann window.
    hop_length : int
    is_causal : bool
    tolerance : float
    """

    def __init__(
        self,
        window: Array,
        hop_length: int,
        *,
        is_causal: bool,
        tolerance: float = 1e-6,
    ) -> None:
        self._length, self._hop = len(window), hop_length
        self._is_causal, self._tolerance = is_causal, tolerance
        self._gamma = HANN_GAMMA * self._length**2
        self._bins = np.arange(self._length // 2 + 1)
        # Phases belong to the middle of the window; a frame begins half of it earlier.
        self._half = np.pi * self._bins
        self._rng = np.random.default_rng(1)
        self._logs = [np.full(len(self._bins), np.log(_TINY)) for _ in range(2)]
        self._growth = 2 * np.pi * self._hop * self._bins / self._length

    def phases(self, magnitudes: Array, before: Array) -> Array:
        """Return the phases of the next frame from those of the frame before it.

        Parameters
        ----------
        magnitudes, before : float[n_bins]
            Of the next frame (causal), phases of the previous one.
        """
        log = np.log(np.maximum(magnitudes, _TINY))
        two_before, one_before = self._logs
        self._logs = [one_before, log]
        del two_before
        return self._integrate(one_before, log, log - one_before, before)

    def phases_between(self, earlier: Array, now: Array, later: Array, before: Array):
        """Return the phases of a frame, given the frames around it (not causal)."""
        logs = [np.log(np.maximum(part, _TINY)) for part in (earlier, now, later)]
        return self._integrate(logs[0], logs[1], (logs[2] - logs[0]) / 2, before)

    def _integrate(self, old: Array, new: Array, change: Array, before: Array) -> Array:
        a, length, gamma = self._hop, self._length, self._gamma
        in_time = [
            self._growth + a * length / gamma * np.gradient(log) for log in (old, new)
        ]
        step = (in_time[0] + in_time[1]) / 2
        along = -gamma / (a * length) * change
        centred = before + self._half
        phases = self._rng.uniform(0, 2 * np.pi, len(new))
        floor = max(old.max(), new.max()) + np.log(self._tolerance)
        waiting = {int(m) for m in np.nonzero(new > floor)[0]}
        heap = [(-old[m], int(m), 0) for m in np.nonzero(old > floor)[0]]
        heapq.heapify(heap)
        while waiting:
            if not heap:
                loudest = max(waiting, key=lambda m: new[m])
                waiting.discard(loudest)
                heap.append((-new[loudest], loudest, 1))
            _, m, is_new = heapq.heappop(heap)
            if not is_new:
                if m in waiting:
                    phases[m] = centred[m] + step[m]
                    waiting.discard(m)
                    heapq.heappush(heap, (-new[m], m, 1))
                continue
            for other in (m - 1, m + 1):
                if other in waiting:
                    mean = (along[m] + along[other]) / 2
                    phases[other] = phases[m] + (other - m) * mean
                    waiting.discard(other)
                    heapq.heappush(heap, (-new[other], other, 1))
        return phases - self._half


class HeapInversion:
    """RTPGHI as a stream: a frame's samples follow at once, or a frame later.

    Parameters
    ----------
    window, hop_length, is_causal
        See `HeapIntegration`.
    """

    def __init__(self, window: Array, hop_length: int, *, is_causal: bool) -> None:
        self._heap = HeapIntegration(window, hop_length, is_causal=is_causal)
        self._window, self._hop = window, hop_length
        self._is_causal = is_causal
        sums = np.zeros(2 * len(window))
        for start in range(0, len(window) + 1, hop_length):
            sums[start : start + len(window)] += window**2
        full = sums[len(window) - hop_length : len(window)]
        self._scale = 1 / np.roll(full, 0)
        self._tail = np.zeros(len(window))
        self._phases = np.zeros(len(window) // 2 + 1)
        self._held: list[Array] = []

    def push(self, magnitudes: Array) -> Array:
        """Add a frame; return the next samples."""
        if self._is_causal:
            self._phases = self._heap.phases(magnitudes, self._phases)
            return self._emit(magnitudes)
        if not self._held:
            self._held = [np.zeros_like(magnitudes), magnitudes]
            return np.empty(0)
        earlier, now = self._held
        self._held = [now, magnitudes]
        self._phases = self._heap.phases_between(earlier, now, magnitudes, self._phases)
        return self._emit(now)

    def _emit(self, magnitudes: Array) -> Array:
        length = len(self._window)
        piece = np.fft.irfft(magnitudes * np.exp(1j * self._phases), length)
        self._tail += piece * self._window
        out = self._tail[: self._hop] * self._scale
        self._tail = np.concatenate([self._tail[self._hop :], np.zeros(self._hop)])
        return out

    def flush(self) -> Array:
        """Return the samples of the last frame and the frames held."""
        parts = []
        if not self._is_causal and self._held:
            parts.append(self.push(np.zeros_like(self._held[1])))
        n_left = len(self._window) - self._hop
        scale = np.tile(self._scale, -(-n_left // self._hop))[:n_left]
        return np.concatenate([*parts, self._tail[:n_left] * scale])
