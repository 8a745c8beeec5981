"""Config names and settings: every name has one meaning, every meaning one name."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vfm_ss.protocol.settings import (
    DATA,
    DECODERS,
    SETTINGS,
    SIZES,
    ConfigName,
    config_name,
    is_published,
    other_steps,
    parse_config_name,
    setting_name,
)
from vfm_ss.protocol.vfms import VFMS

every = settings(max_examples=500, deadline=None, derandomize=True)

rest = (
    st.fractions(0, 1, max_denominator=10**6).filter(bool),
    st.none() | st.integers(1, 10**8),
)
parts = st.builds(
    ConfigName,
    st.sampled_from(list(VFMS)),
    st.sampled_from(list(SIZES)),
    st.integers(1, 10**6),
    st.sampled_from(DECODERS),
    st.sampled_from(list(DATA)),
    *rest,
)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
own_parts = st.builds(
    ConfigName,
    words,
    st.sampled_from("stbl"),
    st.integers(1, 99),
    st.sampled_from(DECODERS),
    words,
    *rest,
)
texts = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"[a-z0-9_-]{1,12}_[a-z]\d{1,3}_[a-z0-9]{1,12}_[a-z0-9_]{1,12}", fullmatch=True),
    parts.map(str).flatmap(lambda s: st.integers(0, len(s)).map(lambda k: s[:k] + "٣" + s[k:])),
)


@every
@given(parts)
def test_a_name_is_taken_apart_into_what_it_was_made_of(name):
    assert parse_config_name(str(name)) == name


@every
@given(own_parts)
def test_so_are_the_names_of_a_projects_own(name):
    assert parse_config_name(str(name), own=True) == name


@every
@given(texts, st.booleans())
def test_any_text_is_a_name_or_refused_with_one_line(text, own):
    try:
        name = parse_config_name(text, own=own)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert str(name) == text


@every
@given(st.sampled_from(list(VFMS)), st.sampled_from(list(SETTINGS)))
def test_a_config_runs_the_setting_that_it_is_named_after(vfm, setting):
    assume(is_published(vfm, setting))
    name = parse_config_name(config_name(vfm, setting))
    assert name.vfm == vfm
    assert name.setting == setting


@every
@given(parts, parts)
def test_two_settings_never_share_a_name(one, other):
    def fields(name):
        data = (name.train_dataset, name.eval_dataset)
        steps = other_steps(name.train_dataset, name.steps)
        return name.size, name.patch, name.decoder, *data, name.fraction, steps

    assert (one.setting == other.setting) == (fields(one) == fields(other))
    assert setting_name(*fields(one)) == one.setting
