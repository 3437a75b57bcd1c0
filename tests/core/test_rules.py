"""Every branch of every rule, and the laws that any sequence of changes keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import rules
from penstock.core.ports import Change, View
from penstock.errors import (
    ContentTypeMismatch,
    LengthMismatch,
    NotAnUpload,
    OffsetMismatch,
    PenstockError,
    PreconditionFailed,
    ProducerFenced,
    ProducerOutOfSequence,
    StreamBusy,
    StreamClosed,
    StreamExists,
    StreamFailed,
    StreamGone,
    StreamIsOpen,
    StreamNotFound,
    WriterEvicted,
)
from penstock.model import Producer, ProducerState, StreamInfo, StreamSpec

NOW = 1000.0
EMPTY = View(None, None)
OPEN = StreamInfo(name="s", incarnation="one", tail=5, created_at=900, modified_at=950)
CLOSED = replace(OPEN, closed=True)
FAILED = replace(CLOSED, failure="it broke")
EXPIRED = replace(OPEN, ttl=50)
DRAFT = StreamInfo(name="s", incarnation="two", created_at=990, modified_at=995, published=False, provisional=True)
GROWING = replace(DRAFT, published=True)
UPLOAD = replace(OPEN, upload=True, upload_ttl=100, writer="w")
HIDDEN = replace(UPLOAD, incarnation="two", published=False)
LAST = ProducerState(Producer("p", 3, 7), 4)


def shown(info: StreamInfo | None, producer: ProducerState | None = None) -> View:
    return View(info, info, producer)


def result(change: Change) -> StreamInfo:
    assert change.info is not None
    assert not change.duplicate
    return change.info


def refuse(info: StreamInfo | None) -> None:
    raise PreconditionFailed("s")


@dataclass
class Asked:
    """A condition that holds, and remembers what it was asked about."""

    about: list[StreamInfo | None] = field(default_factory=list)

    def __call__(self, info: StreamInfo | None) -> None:
        self.about.append(info)


def test_the_size_of_buffers_is_counted_in_bytes() -> None:
    assert rules.size_of([]) == 0
    assert rules.size_of([b"ab", bytearray(3), memoryview(b"xyz")[1:], b""]) == 7


def test_an_expired_stream_counts_as_absent_at_once() -> None:
    assert rules.living(None, NOW) is None
    assert rules.living(OPEN, NOW) is OPEN
    assert rules.living(EXPIRED, 999.9) is EXPIRED
    assert rules.living(EXPIRED, 1000.0) is None


class TestCreate:
    def create(self, view: View, **options: object) -> Change:
        spec = options.pop("spec", StreamSpec())
        return rules.create(view, "s", spec, incarnation="new", now=NOW, **options)  # type: ignore[arg-type]

    def test_says_what_the_creator_said(self) -> None:
        spec = StreamSpec(content_type="a/b", length=9, metadata={"k": "v"}, ttl=5, expires_at=2000)
        change = self.create(EMPTY, spec=spec)
        assert change == Change(
            StreamInfo(
                name="s",
                incarnation="new",
                content_type="a/b",
                length=9,
                metadata={"k": "v"},
                created_at=NOW,
                modified_at=NOW,
                ttl=5,
                expires_at=2000,
            )
        )

    def test_may_bring_bytes_a_close_and_a_producer(self) -> None:
        change = self.create(EMPTY, data=[b"ab", b"c"], close=True, producer=Producer("p", 9, 0))
        info = result(change)
        assert (info.tail, info.closed, info.published, info.provisional) == (3, True, True, False)
        assert change.data == [b"ab", b"c"]
        assert change.offset == 3
        assert change.producer == ProducerState(Producer("p", 9, 0), 3)

    @pytest.mark.parametrize("there", [OPEN, CLOSED, FAILED, GROWING])
    def test_is_refused_where_the_name_shows_a_stream(self, there: StreamInfo) -> None:
        with pytest.raises(StreamExists):
            self.create(shown(there))

    def test_takes_the_place_of_an_expired_stream(self) -> None:
        assert result(self.create(shown(EXPIRED, LAST))).incarnation == "new"

    def test_a_producer_begins_with_sequence_zero(self) -> None:
        with pytest.raises(ProducerOutOfSequence) as refused:
            self.create(EMPTY, producer=Producer("p", 1, 1))
        assert (refused.value.sequence, refused.value.expected) == (1, 0)

    @pytest.mark.parametrize(("size", "close"), [(6, False), (6, True), (4, True)])
    def test_is_held_to_the_declared_length(self, size: int, close: bool) -> None:
        with pytest.raises(LengthMismatch) as refused:
            self.create(EMPTY, spec=StreamSpec(length=5), data=[bytes(size)], close=close)
        assert (refused.value.length, refused.value.size) == (5, size)

    def test_may_reach_the_declared_length_and_stay_open(self) -> None:
        assert not result(self.create(EMPTY, spec=StreamSpec(length=5), data=[bytes(5)])).closed
        assert result(self.create(EMPTY, spec=StreamSpec(length=0), close=True)).complete


class TestAppend:
    def append(self, view: View, *data: bytes, **options: object) -> Change:
        return rules.append(view, "s", data, **{"now": NOW, **options})  # type: ignore[arg-type]

    def test_moves_the_tail_by_what_it_brings(self) -> None:
        change = self.append(shown(OPEN), b"ab", b"cde")
        assert change == Change(replace(OPEN, tail=10, modified_at=NOW), data=(b"ab", b"cde"), offset=10)

    def test_may_close(self) -> None:
        assert result(self.append(shown(OPEN), b"ab", close=True)).complete
        assert result(self.append(shown(OPEN), close=True)) == replace(OPEN, closed=True, modified_at=NOW)

    def test_a_clock_that_was_set_back_does_not_make_the_stream_older(self) -> None:
        assert result(self.append(shown(OPEN), b"a", now=1.0)).modified_at == OPEN.modified_at

    @pytest.mark.parametrize("there", [None, EXPIRED])
    def test_there_must_be_a_stream(self, there: StreamInfo | None) -> None:
        with pytest.raises(StreamNotFound):
            self.append(shown(there), b"a")
        with pytest.raises(StreamGone) as gone:
            self.append(shown(there), b"a", incarnation="one")
        assert gone.value.incarnation == "one"

    def test_another_incarnation_is_not_the_one_that_was_meant(self) -> None:
        with pytest.raises(StreamGone) as gone:
            self.append(shown(OPEN), b"a", incarnation="zero")
        assert gone.value.incarnation == "zero"
        assert result(self.append(shown(OPEN), b"a", incarnation="one")).tail == 6

    def test_a_failed_stream_takes_nothing_and_says_why(self) -> None:
        for options in ({}, {"close": True}):
            with pytest.raises(StreamFailed) as failed:
                self.append(shown(FAILED), **options)
            assert (failed.value.tail, failed.value.reason) == (5, "it broke")

    def test_a_closed_stream_takes_nothing(self) -> None:
        for options in ({}, {"offset": 5}, {"close": True, "offset": 4}):
            with pytest.raises(StreamClosed) as closed:
                self.append(shown(CLOSED), **options)
            assert closed.value.tail == 5
        with pytest.raises(StreamClosed):
            self.append(shown(CLOSED), b"a", close=True)

    @pytest.mark.parametrize("offset", [None, 5])
    def test_closing_again_is_harmless(self, offset: int | None) -> None:
        change = self.append(shown(CLOSED), close=True, offset=offset)
        assert change == Change(CLOSED, duplicate=True, offset=5)

    def test_what_is_being_uploaded_is_its_writers_alone(self) -> None:
        with pytest.raises(StreamBusy):
            self.append(shown(GROWING), b"a")
        assert result(self.append(shown(GROWING), b"a", incarnation="two")).provisional
        draft = result(self.append(View(DRAFT, CLOSED), b"a", incarnation="two"))
        assert (draft.tail, draft.published, draft.provisional) == (1, False, True)

    def test_the_content_type_must_fit_where_it_is_given(self) -> None:
        with pytest.raises(ContentTypeMismatch) as refused:
            self.append(shown(OPEN), b"a", content_type="text/plain")
        assert (refused.value.given, refused.value.content_type) == ("text/plain", OPEN.content_type)
        assert result(self.append(shown(OPEN), b"a", content_type=OPEN.content_type)).tail == 6

    @pytest.mark.parametrize("offset", [0, 4, 6])
    def test_the_offset_must_be_the_tail_where_it_is_given(self, offset: int) -> None:
        with pytest.raises(OffsetMismatch) as refused:
            self.append(shown(OPEN), b"a", offset=offset)
        assert (refused.value.offset, refused.value.tail) == (offset, 5)
        assert result(self.append(shown(OPEN), b"a", offset=5)).tail == 6

    @pytest.mark.parametrize(("size", "close"), [(4, False), (4, True), (2, True), (0, True)])
    def test_is_held_to_the_declared_length(self, size: int, close: bool) -> None:
        with pytest.raises(LengthMismatch):
            self.append(shown(replace(OPEN, length=8)), bytes(size), close=close)
        assert result(self.append(shown(replace(OPEN, length=8)), bytes(3), close=close)).closed == close

    def test_an_unknown_producer_begins_with_sequence_zero(self) -> None:
        change = self.append(shown(OPEN), b"a", producer=Producer("p", 4, 0))
        assert change.producer == ProducerState(Producer("p", 4, 0), 6)
        with pytest.raises(ProducerOutOfSequence):
            self.append(shown(OPEN), b"a", producer=Producer("p", 4, 1))

    def test_a_known_producer_goes_on_with_the_next_sequence(self) -> None:
        change = self.append(shown(OPEN, LAST), b"a", producer=Producer("p", 3, 8))
        assert (change.offset, change.producer) == (6, ProducerState(Producer("p", 3, 8), 6))

    def test_a_sequence_that_leaves_one_out_is_refused(self) -> None:
        with pytest.raises(ProducerOutOfSequence) as refused:
            self.append(shown(OPEN, LAST), b"a", producer=Producer("p", 3, 9))
        assert (refused.value.producer, refused.value.sequence, refused.value.expected) == ("p", 9, 8)

    def test_an_older_epoch_is_fenced_off(self) -> None:
        with pytest.raises(ProducerFenced) as fenced:
            self.append(shown(OPEN, LAST), b"a", producer=Producer("p", 2, 8))
        assert (fenced.value.producer, fenced.value.epoch, fenced.value.current) == ("p", 2, 3)

    def test_a_newer_epoch_begins_with_sequence_zero(self) -> None:
        change = self.append(shown(OPEN, LAST), b"a", producer=Producer("p", 5, 0))
        assert change.producer == ProducerState(Producer("p", 5, 0), 6)
        with pytest.raises(ProducerOutOfSequence):
            self.append(shown(OPEN, LAST), b"a", producer=Producer("p", 5, 8))

    @pytest.mark.parametrize("there", [OPEN, CLOSED, FAILED])
    @pytest.mark.parametrize("options", [{}, {"offset": 0}, {"close": True}, {"content_type": "text/plain"}])
    @pytest.mark.parametrize("sequence", [7, 6, 0])
    def test_a_repetition_succeeds_whatever_came_after_it(
        self, there: StreamInfo, options: dict[str, object], sequence: int
    ) -> None:
        change = self.append(shown(there, LAST), b"a", producer=Producer("p", 3, sequence), **options)
        assert change == Change(there, duplicate=True, offset=4)


class TestReplacement:
    def begin(self, view: View, condition: rules.Condition | None = None) -> StreamInfo:
        spec = StreamSpec(content_type="a/b", length=3)
        return result(rules.begin_replacement(view, "s", spec, incarnation="two", now=NOW, condition=condition))

    def publish(self, view: View, condition: rules.Condition | None = None, now: float = NOW) -> Change:
        return rules.publish(view, "s", incarnation="two", now=now, digests={"sha-256": b"d"}, condition=condition)

    def put(self, view: View, data: bytes, condition: rules.Condition | None = None) -> Change:
        return rules.put(
            view,
            "s",
            StreamSpec(length=3),
            incarnation="two",
            now=NOW,
            data=[data],
            digests={"sha-256": b"d"},
            condition=condition,
        )

    @pytest.mark.parametrize("current", [None, EXPIRED])
    def test_of_nothing_is_published_at_once(self, current: StreamInfo | None) -> None:
        info = self.begin(View(None, current))
        assert (info.published, info.provisional, info.closed, info.tail) == (True, True, False, 0)
        assert (info.content_type, info.length, info.incarnation, info.created_at) == ("a/b", 3, "two", NOW)

    @pytest.mark.parametrize("current", [CLOSED, FAILED])
    def test_of_a_closed_stream_is_not_seen_before_it_is_complete(self, current: StreamInfo) -> None:
        info = self.begin(View(None, current))
        assert (info.published, info.provisional) == (False, True)

    @pytest.mark.parametrize("current", [OPEN, GROWING])
    def test_of_an_open_stream_is_refused(self, current: StreamInfo) -> None:
        with pytest.raises(StreamIsOpen):
            self.begin(View(None, current))
        with pytest.raises(StreamIsOpen):
            self.put(View(None, current), b"abc")

    @pytest.mark.parametrize(("current", "seen"), [(None, None), (EXPIRED, None), (CLOSED, CLOSED), (FAILED, FAILED)])
    def test_depends_on_a_condition_about_what_the_name_shows(
        self, current: StreamInfo | None, seen: StreamInfo | None
    ) -> None:
        begun, put = Asked(), Asked()
        self.begin(View(None, current), begun)
        self.put(View(None, current), b"abc", put)
        assert begun.about == put.about == [seen]
        with pytest.raises(PreconditionFailed):
            self.begin(View(None, current), refuse)
        with pytest.raises(PreconditionFailed):
            self.put(View(None, current), b"abc", refuse)

    def test_the_condition_comes_before_the_stream_that_is_open(self) -> None:
        with pytest.raises(PreconditionFailed):
            self.begin(View(None, OPEN), refuse)

    @pytest.mark.parametrize("view", [View(DRAFT, CLOSED), View(DRAFT, None), View(DRAFT, EXPIRED), shown(GROWING)])
    def test_publish_completes_it(self, view: View) -> None:
        assert view.target is not None
        assert self.publish(view) == Change(
            replace(
                view.target,
                closed=True,
                published=True,
                provisional=False,
                digests={"sha-256": b"d"},
                modified_at=NOW,
            ),
            offset=view.target.tail,
        )

    def test_publish_needs_the_draft(self) -> None:
        gone = replace(DRAFT, expires_at=NOW)
        for view in (View(None, CLOSED), EMPTY, View(gone, CLOSED)):
            with pytest.raises(StreamGone) as refused:
                self.publish(view)
            assert refused.value.incarnation == "two"

    def test_publish_does_not_take_the_place_of_an_open_stream(self) -> None:
        with pytest.raises(StreamIsOpen):
            self.publish(View(DRAFT, OPEN))

    def test_publish_is_held_to_the_declared_length(self) -> None:
        with pytest.raises(LengthMismatch):
            self.publish(View(replace(DRAFT, length=3, tail=2), CLOSED))
        assert result(self.publish(View(replace(DRAFT, length=3, tail=3), CLOSED))).complete

    @pytest.mark.parametrize(("current", "seen"), [(None, None), (EXPIRED, None), (CLOSED, CLOSED), (OPEN, OPEN)])
    def test_publish_asks_the_condition_again(self, current: StreamInfo | None, seen: StreamInfo | None) -> None:
        with pytest.raises(PreconditionFailed):
            self.publish(View(DRAFT, current), refuse)
        asked = Asked()
        if current is not OPEN:
            self.publish(View(DRAFT, current), asked)
            assert asked.about == [seen]

    def test_publish_does_not_ask_about_the_stream_itself(self) -> None:
        assert result(self.publish(shown(GROWING), refuse)).complete

    def test_put_is_a_whole_stream_in_one_step(self) -> None:
        for current in (None, EXPIRED, CLOSED, FAILED):
            change = self.put(View(None, current), b"abc")
            info = result(change)
            assert (info.tail, info.complete, info.published, info.provisional) == (3, True, True, False)
            assert (info.incarnation, dict(info.digests)) == ("two", {"sha-256": b"d"})
            assert (change.data, change.offset, change.producer) == ([b"abc"], 3, None)

    @pytest.mark.parametrize("data", [b"", b"ab", b"abcd"])
    def test_put_is_held_to_the_declared_length(self, data: bytes) -> None:
        with pytest.raises(LengthMismatch):
            self.put(EMPTY, data)

    @pytest.mark.parametrize("target", [DRAFT, GROWING])
    def test_discard_removes_what_is_provisional(self, target: StreamInfo) -> None:
        assert rules.discard(View(target, CLOSED)) == Change(None)

    @pytest.mark.parametrize("target", [None, OPEN, CLOSED, FAILED])
    def test_discard_leaves_everything_else(self, target: StreamInfo | None) -> None:
        assert rules.discard(View(target, CLOSED)) == Change(target, duplicate=True)


Removal = Callable[..., Change]


def fail(view: View, **options: object) -> Change:
    return rules.fail(view, "s", "it broke", now=NOW, **options)  # type: ignore[arg-type]


def delete(view: View, **options: object) -> Change:
    return rules.delete(view, "s", now=NOW, **options)  # type: ignore[arg-type]


class TestEndings:
    @pytest.mark.parametrize("rule", [fail, delete])
    def test_there_must_be_a_stream(self, rule: Removal) -> None:
        for there in (None, EXPIRED):
            with pytest.raises(StreamNotFound):
                rule(shown(there))
            with pytest.raises(StreamGone):
                rule(shown(there), incarnation="one")
        with pytest.raises(StreamGone):
            rule(shown(OPEN), incarnation="zero")

    @pytest.mark.parametrize("there", [OPEN, GROWING])
    def test_fail_ends_a_stream_and_keeps_it(self, there: StreamInfo) -> None:
        change = fail(shown(there), incarnation=there.incarnation)
        info = result(change)
        assert (info.state, info.failure, info.tail, info.provisional) == ("failed", "it broke", there.tail, False)
        assert (info.modified_at, change.offset, change.data) == (NOW, there.tail, ())

    def test_fail_again_is_harmless(self) -> None:
        earlier = replace(FAILED, failure="for another reason")
        assert fail(shown(earlier)) == Change(earlier, duplicate=True, offset=5)

    def test_a_closed_stream_cannot_fail(self) -> None:
        with pytest.raises(StreamClosed):
            fail(shown(CLOSED))

    @pytest.mark.parametrize("there", [OPEN, CLOSED, FAILED, GROWING])
    def test_delete_removes_any_stream(self, there: StreamInfo) -> None:
        assert delete(shown(there)) == delete(shown(there), incarnation=there.incarnation) == Change(None)

    def test_delete_depends_on_a_condition_about_what_the_name_shows(self) -> None:
        asked = Asked()
        delete(shown(OPEN), condition=asked)
        with pytest.raises(StreamNotFound):
            delete(shown(EXPIRED), condition=asked)
        assert asked.about == [OPEN]
        with pytest.raises(PreconditionFailed):
            delete(shown(OPEN), condition=refuse)

    def test_expire_removes_a_stream_whose_time_has_come(self) -> None:
        assert rules.expire(shown(EXPIRED), now=NOW) == Change(None)

    @pytest.mark.parametrize("there", [None, OPEN, replace(EXPIRED, modified_at=951)])
    def test_expire_leaves_what_is_not_there_or_was_changed_meanwhile(self, there: StreamInfo | None) -> None:
        assert rules.expire(shown(there), now=NOW) == Change(there, duplicate=True)

    def test_a_digest_is_added_to_those_that_are_known(self) -> None:
        known = replace(CLOSED, digests={"md5": b"m"})
        change = rules.add_digest(shown(known), "sha-256", b"s")
        assert change == Change(replace(known, digests={"md5": b"m", "sha-256": b"s"}), offset=5)
        assert known.digests == {"md5": b"m"}

    @pytest.mark.parametrize("there", [None, OPEN, FAILED])
    def test_only_a_complete_stream_has_digests(self, there: StreamInfo | None) -> None:
        assert rules.add_digest(shown(there), "sha-256", b"s") == Change(there, duplicate=True)


# -- any sequence of changes


@dataclass
class World:
    """One name, with what it shows, a draft, bytes, and producers; changes are applied as a store does."""

    now: float = NOW
    current: StreamInfo | None = None
    draft: StreamInfo | None = None
    data: dict[str, bytes] = field(default_factory=dict)
    producers: dict[tuple[str, str], ProducerState] = field(default_factory=dict)
    created: int = 0

    def view(self, incarnation: str | None, producer: Producer | None) -> View:
        target = self.current
        if incarnation is not None and (target is None or target.incarnation != incarnation):
            target = self.draft if self.draft is not None and self.draft.incarnation == incarnation else None
        known = None
        if target is not None and producer is not None:
            known = self.producers.get((target.incarnation, producer.id))
        return View(target, self.current, known)

    def apply(self, view: View, change: Change) -> None:
        if change.duplicate:
            return
        info = change.info
        if view.target is not None and (info is None or info.incarnation != view.target.incarnation):
            if view.target is self.draft:
                self.draft = None
            else:
                self.current = None
        if info is None:
            return
        self.data[info.incarnation] = self.data.get(info.incarnation, b"") + b"".join(map(bytes, change.data))
        if change.producer is not None:
            self.producers[info.incarnation, change.producer.producer.id] = change.producer
        if info.published:
            self.draft = None if self.draft is not None and self.draft.incarnation == info.incarnation else self.draft
            self.current = info
        else:
            self.draft = info


specs = st.builds(StreamSpec, length=st.none() | st.integers(0, 12), ttl=st.none() | st.sampled_from([1.0, 20.0]))
datas = st.lists(st.binary(max_size=4), max_size=3)
actors = st.none() | st.builds(Producer, st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3))
steps = st.one_of(
    st.tuples(st.just("create"), specs, datas, st.booleans(), actors),
    st.tuples(st.just("append"), st.none() | st.integers(-1, 1), datas, st.booleans(), actors),
    st.tuples(st.just("append"), st.none() | st.just(0), datas, st.just(False), actors),
    st.tuples(st.just("draft"), st.none(), datas, st.booleans(), actors),
    st.tuples(st.just("begin"), specs),
    st.tuples(st.just("put"), specs, datas),
    st.tuples(st.sampled_from(["publish", "discard", "fail", "delete", "expire", "digest"])),
    st.tuples(st.just("wait"), st.sampled_from([-5.0, 0.5, 2.0, 30.0])),
)
Step = tuple[object, ...]


def decide(world: World, step: Step) -> tuple[View, Callable[[View], Change]]:
    """Return what a step is decided on, and the decision."""
    kind, now = step[0], world.now
    world.created += 1
    new = f"incarnation {world.created}"
    draft = "none" if world.draft is None else world.draft.incarnation
    match step:
        case "create", StreamSpec() as spec, list() as data, bool() as close, actor:
            producer = actor if isinstance(actor, Producer) else None
            return world.view(None, producer), lambda view: rules.create(
                view, "s", spec, incarnation=new, now=now, data=data, close=close, producer=producer
            )
        case "append" | "draft", by, list() as data, bool() as close, actor:
            producer = actor if isinstance(actor, Producer) else None
            incarnation = draft if kind == "draft" else None
            if kind == "append" and world.current is not None and world.current.provisional:
                incarnation = world.current.incarnation
            view = world.view(incarnation, producer)
            offset = view.target.tail + by if isinstance(by, int) and view.target is not None else None
            return view, lambda view: rules.append(
                view, "s", data, now=now, offset=offset, producer=producer, close=close, incarnation=incarnation
            )
        case "begin", StreamSpec() as spec:
            return world.view(new, None), lambda view: rules.begin_replacement(
                view, "s", spec, incarnation=new, now=now, condition=None
            )
        case "put", StreamSpec() as spec, list() as data:
            return world.view(new, None), lambda view: rules.put(
                view, "s", spec, incarnation=new, now=now, data=data, digests={"d": b""}, condition=None
            )
        case ("publish",):
            return world.view(draft, None), lambda view: rules.publish(
                view, "s", incarnation=draft, now=now, digests={"d": b""}, condition=None
            )
        case ("discard",):
            return world.view(draft, None), rules.discard
        case ("fail",):
            return world.view(None, None), lambda view: rules.fail(view, "s", "it broke", now=now)
        case ("delete",):
            return world.view(None, None), lambda view: rules.delete(view, "s", now=now)
        case ("expire",):
            return world.view(None, None), lambda view: rules.expire(view, now=now)
        case _:
            return world.view(None, None), lambda view: rules.add_digest(view, "e", b"")


def check_transition(view: View, change: Change, data: bytes) -> None:
    before, after = view.target, change.info
    if change.duplicate:
        assert after == before
        assert not change.data
        assert change.producer is None
        return
    if after is None:
        assert not change.data
        return
    added = rules.size_of(change.data)
    fresh = before is None or before.incarnation != after.incarnation
    assert after.tail == (0 if fresh or before is None else before.tail) + added == len(data)
    assert change.offset == after.tail
    if after.length is not None:
        assert after.tail <= after.length
        assert after.tail == after.length or not after.complete
    assert after.failure is None or after.closed
    assert after.published or after.provisional or after.upload
    assert not after.digests or after.complete
    if fresh or before is None:
        assert after.created_at == after.modified_at
    else:
        assert after.modified_at >= before.modified_at
        assert (after.created_at, after.length, after.ttl) == (before.created_at, before.length, before.ttl)
        assert after.published >= before.published
        assert after.provisional <= before.provisional
        if before.closed:
            assert after.closed
            assert after.tail == before.tail
            assert after.failure == before.failure
    if change.producer is not None:
        check_producer(None if fresh else view.producer, change.producer, after.tail)


def check_producer(last: ProducerState | None, state: ProducerState, tail: int) -> None:
    assert state.offset == tail
    new = state.producer
    if last is None or new.epoch != last.producer.epoch:
        assert new.sequence == 0
        assert last is None or new.epoch > last.producer.epoch
    else:
        assert new.sequence == last.producer.sequence + 1


class TestUpload:
    def begin(self, view: View, condition: rules.Condition | None = None) -> StreamInfo:
        spec = StreamSpec(length=9, owner="ann", key="k", attributes={"a": 1})
        return result(rules.begin_upload(view, "s", spec, incarnation="two", now=NOW, ttl=60, condition=condition))

    def append(self, view: View, writer: str | None, **options: object) -> StreamInfo:
        options = {"incarnation": None if view.target is None else view.target.incarnation, **options}
        return result(rules.append(view, "s", [b"abc"], now=NOW, writer=writer, **options))  # type: ignore[arg-type]

    def take_over(self, view: View, writer: str | None = "x", **options: object) -> StreamInfo:
        return result(rules.take_over(view, "s", now=NOW, writer=writer, **options))  # type: ignore[arg-type]

    def test_belongs_to_no_process_and_is_shown_where_nothing_was(self) -> None:
        for current, published in ((None, True), (EXPIRED, True), (CLOSED, False)):
            info = self.begin(View(None, current))
            assert (info.published, info.provisional, info.upload, info.upload_ttl) == (published, False, True, 60)
            assert (info.owner, info.key, info.attributes, info.writer) == ("ann", "k", {"a": 1}, None)

    def test_is_refused_like_a_replacement(self) -> None:
        with pytest.raises(StreamIsOpen):
            self.begin(shown(OPEN))
        with pytest.raises(PreconditionFailed):
            self.begin(shown(CLOSED), refuse)

    def test_holds_its_name_for_nobody(self) -> None:
        asked: list[StreamInfo | None] = []
        assert not self.begin(shown(UPLOAD), asked.append).published
        other = replace(HIDDEN, length=None)
        change = rules.publish(
            View(other, UPLOAD), "s", incarnation="two", now=NOW, digests={}, condition=asked.append, writer="w"
        )
        assert result(change).published
        assert asked == [None, None]

    def test_expires_without_progress_until_it_is_complete(self) -> None:
        assert UPLOAD.deadline == 1050
        assert replace(UPLOAD, ttl=50).deadline == 1000
        assert replace(UPLOAD, ttl=200).deadline == 1050
        assert replace(UPLOAD, expires_at=990).deadline == 990
        assert self.append(shown(UPLOAD), "w").deadline == NOW + 100
        assert self.take_over(shown(UPLOAD)).deadline == 1050
        done = rules.publish(shown(UPLOAD), "s", incarnation="one", now=NOW, digests={}, condition=None, writer="w")
        assert result(done).deadline is None

    def test_grows_by_its_last_writer_alone(self) -> None:
        assert self.append(shown(UPLOAD), "w").tail == 8
        with pytest.raises(StreamBusy):
            self.append(shown(UPLOAD), None)
        with pytest.raises(StreamBusy):
            self.append(shown(UPLOAD), None, close=True)
        for evicted in (UPLOAD, replace(UPLOAD, writer=None)):
            with pytest.raises(WriterEvicted):
                self.append(shown(evicted), "v")

    def test_is_completed_by_its_last_writer_alone(self) -> None:
        for writer, error in ((None, StreamBusy), ("v", WriterEvicted)):
            with pytest.raises(error):
                rules.publish(
                    View(HIDDEN, CLOSED), "s", incarnation="two", now=NOW, digests={}, condition=None, writer=writer
                )
        done = rules.publish(
            View(HIDDEN, CLOSED), "s", incarnation="two", now=NOW, digests={}, condition=None, writer="w"
        )
        info = result(done)
        assert (info.published, info.complete, info.upload, info.writer) == (True, True, False, None)

    def test_taking_over_changes_who_writes_and_nothing_else(self) -> None:
        for writer in ("x", None):
            assert self.take_over(shown(UPLOAD), writer) == replace(UPLOAD, writer=writer)
        assert self.take_over(View(HIDDEN, CLOSED), incarnation="two", offset=5) == replace(HIDDEN, writer="x")

    def test_taking_over_needs_an_upload_that_goes_on(self) -> None:
        for view, error in (
            (EMPTY, StreamNotFound),
            (shown(replace(UPLOAD, expires_at=NOW)), StreamNotFound),
            (shown(OPEN), NotAnUpload),
            (shown(CLOSED), StreamClosed),
            (shown(FAILED), StreamFailed),
        ):
            with pytest.raises(error):
                self.take_over(view)
        with pytest.raises(StreamGone):
            self.take_over(View(None, CLOSED), incarnation="two")

    @pytest.mark.parametrize("offset", [0, 4, 6])
    def test_taking_over_needs_the_tail(self, offset: int) -> None:
        with pytest.raises(OffsetMismatch):
            self.take_over(shown(UPLOAD), offset=offset)

    def test_the_length_is_declared_once(self) -> None:
        assert self.take_over(shown(UPLOAD), length=5).length == 5
        known = shown(replace(UPLOAD, length=9))
        assert self.take_over(known, length=9).length == 9
        assert self.take_over(known).length == 9
        for view, length in ((known, 8), (known, 10), (shown(UPLOAD), 4)):
            with pytest.raises(LengthMismatch):
                self.take_over(view, length=length)

    def test_annotations_are_no_change_of_the_stream(self) -> None:
        for info in (OPEN, CLOSED, FAILED, UPLOAD):
            there = replace(info, attributes={"a": 1, "b": 2})
            change = rules.annotate(shown(there), "s", {"a": None, "c": [3]}, now=NOW)
            assert change == Change(replace(info, attributes={"b": 2, "c": [3]}), offset=info.tail)
        with pytest.raises(StreamNotFound):
            rules.annotate(EMPTY, "s", {}, now=NOW)


@given(st.lists(steps, max_size=40))
def test_any_sequence_of_changes_keeps_the_laws(sequence: list[Step]) -> None:
    world = World()
    for step in sequence:
        if step[0] == "wait":
            assert isinstance(step[1], float)
            world.now += step[1]
            continue
        view, decision = decide(world, step)
        try:
            change = decision(view)
        except PenstockError:
            continue
        world.apply(view, change)
        data = b"" if change.info is None else world.data.get(change.info.incarnation, b"")
        check_transition(view, change, data)
        if change.producer is not None and step[0] != "create":
            again = decision(View(change.info, world.current, change.producer))
            assert (again.duplicate, again.offset) == (True, change.offset)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.binary(max_size=3)), max_size=30))
def test_a_producer_writes_each_sequence_of_an_epoch_once_and_in_order(sends: list[tuple[int, int, bytes]]) -> None:
    info, state = StreamInfo(name="s", incarnation="one"), None
    written: list[tuple[int, int]] = []
    for epoch, sequence, data in sends:
        try:
            change = rules.append(
                View(info, info, state), "s", [data], now=NOW, producer=Producer("p", epoch, sequence)
            )
        except (ProducerFenced, ProducerOutOfSequence):
            continue
        if change.duplicate:
            assert (epoch, sequence) in written
        else:
            written.append((epoch, sequence))
            info, state = result(change), change.producer
    assert written == sorted(set(written))
    for epoch in {epoch for epoch, _ in written}:
        sequences = [sequence for other, sequence in written if other == epoch]
        assert sequences == list(range(len(sequences)))


# -- records that are numbered one by one -----------------------------------------------------------------------------


def _run(view: View, first: int, *records: bytes, epoch: int = 0, close: bool = False) -> Change:
    return rules.append_records(
        view,
        "s",
        b"".join(records),
        len(records),
        lambda skipped: b"".join(records[skipped:]),
        now=2.0,
        producer=Producer("p", epoch, first),
        close=close,
    )


def _seen(last: int | None, *, epoch: int = 0) -> View:
    info = StreamInfo(name="s", incarnation="i", tail=100)
    known = None if last is None else ProducerState(Producer("p", epoch, last), 90)
    return View(info, info, known)


@pytest.mark.parametrize(
    ("last", "first", "written", "sequence"),
    [
        (None, 0, b"abc", 2),
        (4, 5, b"abc", 7),
        (5, 5, b"bc", 7),
        (6, 5, b"c", 7),
        (7, 5, b"", None),
        (9, 5, b"", None),
    ],
)
def test_records_that_were_sent_before_are_left_out(
    last: int | None, first: int, written: bytes, sequence: int | None
) -> None:
    change = _run(_seen(last), first, b"a", b"b", b"c")
    assert b"".join(map(bytes, change.data)) == written
    assert change.duplicate == (not written)
    if sequence is None:
        assert (change.producer, change.offset) == (None, 90)
    else:
        assert change.producer == ProducerState(Producer("p", 0, sequence), 100 + len(written))
        assert change.offset == 100 + len(written)


@pytest.mark.parametrize(("last", "first"), [(None, 1), (4, 6)])
def test_records_that_leave_some_out_are_refused(last: int | None, first: int) -> None:
    with pytest.raises(ProducerOutOfSequence):
        _run(_seen(last), first, b"a", b"b")


def test_records_of_another_epoch_begin_anew_or_are_fenced() -> None:
    assert _run(_seen(7, epoch=1), 0, b"a", b"b", epoch=2).producer == ProducerState(Producer("p", 2, 1), 102)
    with pytest.raises(ProducerFenced):
        _run(_seen(7, epoch=1), 8, b"a", epoch=0)
    with pytest.raises(ProducerOutOfSequence):
        _run(_seen(7, epoch=1), 8, b"a", epoch=2)


def test_a_close_that_comes_again_with_all_its_records_is_a_repetition() -> None:
    closed = StreamInfo(name="s", incarnation="i", tail=100, closed=True)
    view = View(closed, closed, ProducerState(Producer("p", 0, 1), 100))
    assert _run(view, 0, b"a", b"b", close=True).duplicate
