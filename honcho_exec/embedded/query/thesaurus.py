"""A small thesaurus of what people ask about.

"Where does the user live?" is answered by "I moved to Lisbon", which shares no word with it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["related_words"]

_GROUPS: Final = """
    live living lives reside home house apartment flat moved move address city town neighborhood neighbourhood
    job work career profession occupation employer employed company hired office works colleague boss
    born birthday birth age old
    married marriage wife husband spouse partner wedding engaged
    child children kid kids son daughter baby
    parent parents mother father mom mum dad family
    sibling siblings brother sister
    pet pets dog cat puppy kitten
    eat food meal dinner lunch breakfast cook recipe restaurant diet
    drink coffee tea wine beer
    allergic allergy allergies intolerant
    ill sick illness disease diagnosed doctor hospital health medication medicine
    hobby hobbies interest interests enjoy pastime fun
    like likes love loves favorite favourite prefer prefers preference fond
    dislike dislikes hate hates avoid
    travel trip vacation holiday journey visit visited visiting flight
    study studies student school university college degree graduated course
    car drive vehicle bike bicycle
    buy bought purchase purchased ordered
    money price cost budget salary paid
    phone number email contact
    language languages speak speaks speaking fluent
    music song songs band concert guitar piano sing
    book books read reading novel author
    film films movie movies watch watched series
    sport sports exercise gym run running workout
    meeting appointment schedule deadline calendar
    plan plans planning goal goals intend hope
    name called nickname
    origin country hometown grew native
    religion church faith pray
    computer laptop software program programming code coding editor
"""

_RELATED: Final[dict[str, frozenset[str]]] = {}
for _line in _GROUPS.split("\n"):
    for _word in _line.split():
        _RELATED[_word] = _RELATED.get(_word, frozenset()) | frozenset(_line.split()) - {_word}


def related_words(words: list[str]) -> list[str]:
    """Return the words of the same meaning, without `words` themselves."""
    related = dict.fromkeys(other for word in words for other in sorted(_RELATED.get(word, ())))
    return [word for word in related if word not in words]
