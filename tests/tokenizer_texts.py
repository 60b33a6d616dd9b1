"""Texts for the tokenizer's tests: what is likely to be split, merged or cut wrongly."""

from hypothesis import strategies as st

END_OF_TEXT = "<|endoftext|>"

# Scripts without spaces, combining marks, emoji made of several code points, runs, odd whitespace.
MULTILINGUAL = (
    "Größenwahn, naïveté, Ελληνικά, Русский язык, עברית, العربية, हिन्दी, ไทย, 日本語のテキスト, "
    "한국어, 中文没有空格, e\u0301e\u0301 👩‍👩‍👧‍👦 🇨🇭🇯🇵 👍🏽, I'll we've it's DON'T, "
    "3.14159 ½ ² Ⅷ १२३, \t\ttabs\r\n\r\n  two\n\n\n   three\u00a0\u2003\u3000wide \n"
)

# Fragments at whose borders a piece, a special token or a character begins or ends.
FRAGMENTS = (
    *("a", "Zed", "été", "e\u0301", "日本", "👍🏽", "7", "42", "²"),
    *("'s", "'ll", "'", "'S", "!", "...", "_", "\x00"),
    *(" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\x1c", "\x85", "\u200b", "\ufeff"),
    *(END_OF_TEXT, "<|", "|>", "<|endoftext", "endoftext|>", "<|user|>"),
)
SURROGATES = ("\ud83d", "\ude00", "\ud800", "\udfff")


def mixed_text(*, surrogates: bool = False) -> st.SearchStrategy[str]:
    """Texts of fragments that meet in awkward ways, beside any Unicode at all."""
    fragments = st.sampled_from(FRAGMENTS + (SURROGATES if surrogates else ()))
    return st.one_of(st.lists(fragments | st.text(max_size=3), max_size=25).map("".join), st.text())


def assigned_text() -> st.SearchStrategy[str]:
    """As `mixed_text`, of assigned characters.

    A regular expression library that knows a later version of Unicode takes a code point for a
    letter where an earlier one does not, and then splits elsewhere. So with merges that reach
    across such a border two libraries may differ on code points that are unassigned in one.
    """
    assigned = st.characters(exclude_categories=["Cs", "Cn"])
    return st.lists(st.sampled_from(FRAGMENTS) | assigned, max_size=30).map("".join)
