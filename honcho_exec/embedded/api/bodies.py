"""Request bodies and query strings of Honcho's OpenAPI document.

Fields that no handler reads are there too: what a server refuses is refused here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from honcho_exec.embedded.wire import JsonModel, Metadata, NewConclusion, NewMessage, ReasoningConfiguration, ResourceId

__all__ = [
    "CardBody",
    "ChatBody",
    "ConclusionBatch",
    "ConclusionQuery",
    "FilterBody",
    "MemberConfig",
    "Members",
    "MessageBatch",
    "MessageSearch",
    "MessageUpdate",
    "PageQuery",
    "PeerCreate",
    "PeerIds",
    "PeerListBody",
    "PeerUpdate",
    "RecallQuery",
    "RepresentationBody",
    "ResourceUpdate",
    "ScopedBody",
    "SessionCreate",
    "WorkspaceCreate",
    "WorkspaceSearch",
]


def _whole(value: object) -> object:
    # JSON knows one kind of number: 10.0 is a whole one.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _strings(value: list[Any]) -> list[Any]:
    # One error for the list: an error for each of half a million items would take 200 MB.
    if not all(isinstance(item, str) for item in value):
        raise ValueError("every item must be a string")
    return value


_Number = Annotated[int, BeforeValidator(_whole)]
_Count = Annotated[_Number, Field(ge=1, le=100)]
_Distance = Annotated[float, Field(ge=0, le=1)]
_Object = dict[str, Any]
_Strings = Annotated[list[Any], AfterValidator(_strings)]
_Scopes = Annotated[list[str], Field(min_length=1, max_length=100)]


class _PeerCard(JsonModel):
    use: bool | None = None
    create: bool | None = None


class _Enabled(JsonModel):
    enabled: bool | None = None


class _Summary(_Enabled):
    messages_per_short_summary: Annotated[_Number, Field(ge=10)] | None = None
    messages_per_long_summary: Annotated[_Number, Field(ge=20)] | None = None


class _Configuration(JsonModel):
    model_config = ConfigDict(extra="allow")

    reasoning: ReasoningConfiguration | None = None
    peer_card: _PeerCard | None = None
    summary: _Summary | None = None
    dream: _Enabled | None = None


class ResourceUpdate(JsonModel):
    """What changes of a workspace or session."""

    metadata: Metadata | None = None
    configuration: _Configuration | None = None


class WorkspaceCreate(JsonModel):
    """A workspace to get or create."""

    id: ResourceId
    metadata: Metadata = Field(default_factory=dict)
    configuration: _Configuration = Field(default_factory=_Configuration)


class PeerUpdate(JsonModel):
    """What changes of a peer."""

    metadata: Metadata | None = None
    configuration: _Object | None = None


class PeerCreate(PeerUpdate):
    """A peer to get or create."""

    id: ResourceId


class MemberConfig(JsonModel):
    """What a member of a session observes."""

    observe_me: bool | None = None
    observe_others: bool | None = None


class SessionCreate(ResourceUpdate):
    """A session to get or create, with peers that join it."""

    id: ResourceId
    peers: dict[ResourceId, MemberConfig] | None = None
    scopes: Annotated[list[str], Field(max_length=100)] | None = None


class Members(RootModel[dict[ResourceId, MemberConfig]]):
    """Peers that join a session."""

    model_config = ConfigDict(strict=True)


class PeerIds(RootModel[_Strings]):
    """Peers that leave a session."""

    model_config = ConfigDict(strict=True)


class MessageBatch(JsonModel):
    """Messages to store."""

    messages: Annotated[list[NewMessage], Field(min_length=1, max_length=100)]


class MessageUpdate(JsonModel):
    """What changes of a message."""

    metadata: Metadata | None = None


class ConclusionBatch(JsonModel):
    """Conclusions to store."""

    conclusions: Annotated[list[NewConclusion], Field(min_length=1, max_length=100)]


class FilterBody(JsonModel):
    """What a list is filtered by."""

    filters: _Object | None = None


class PeerListBody(FilterBody):
    """What a list of peers is filtered by."""

    kind: Literal["scope", "all"] | None = None


class MessageSearch(FilterBody):
    """A search of messages."""

    query: str
    limit: _Count = 10


class WorkspaceSearch(MessageSearch):
    """A search of a workspace's messages."""

    scope: str | None = None


class ConclusionQuery(FilterBody):
    """A search of conclusions."""

    query: str
    top_k: _Count = 10
    distance: _Distance | None = None


class ScopedBody(FilterBody):
    """Whom a request is about, and from which sessions."""

    session_id: str | None = None
    target: str | None = None
    scope: str | _Scopes | None = None


class ChatBody(ScopedBody):
    """A question."""

    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    stream: bool = False
    reasoning_level: Literal["minimal", "low", "medium", "high", "max"] = "low"
    response_format: _Object | None = None


class RepresentationBody(ScopedBody):
    """What a representation holds."""

    search_query: str | None = None
    search_top_k: _Count | None = None
    search_max_distance: _Distance | None = None
    include_most_frequent: bool | None = None
    max_conclusions: _Count | None = 25


class CardBody(JsonModel):
    """The lines of a card."""

    peer_card: _Strings


class PageQuery(BaseModel):
    """Which page of a list is requested, in a query string."""

    page: int = Field(1, ge=1)
    size: int = Field(50, ge=1, le=100)
    reverse: bool = False


class RecallQuery(BaseModel):
    """What a context holds, in a query string."""

    tokens: Annotated[int, Field(ge=-(2**31), le=100_000)] | None = None
    summary: bool = True
    limit_to_session: bool = False
    search_query: str | None = None
    search_top_k: Annotated[int, Field(ge=1, le=100)] | None = None
    search_max_distance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    include_most_frequent: bool = True
    max_conclusions: Annotated[int, Field(ge=1, le=100)] | None = None
