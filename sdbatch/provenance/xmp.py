"""XMP: what a file says of itself in words that other programs read.

    Properties --> packet_of() --> Packet          bytes of a packet --> read_packet() --> values by name

A packet is a function of its properties: it holds no time of writing and no version of a program. It stands on one
line. What XML cannot hold is replaced, and a text that is too long for its file is cut and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from xml.etree import ElementTree as ET

from sdbatch.packets import JPEG_BYTES_MAX, Packet
from sdbatch.recipe import Recipe

XMP_VERSION: Final = 1
"""Raised when the same properties give another packet."""
CREATOR_TOOL: Final = "sdbatch"
CUT: Final = " [cut]"
"""Ends a text that was too long."""
NAMESPACES: Final = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "sdbatch": "urn:sdbatch:xmp:1:",
}
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_BOUNDS: Final = {"jpg": JPEG_BYTES_MAX}


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What a file says of itself; "" and () say nothing.

    Attributes:
        source_type: Digital source type, an address of IPTC's vocabulary.
        system: The system that generated it.
        system_version: Identity of the model's content.
        document: Name of the output: its request key and number.
        made_at: Time at which the master was committed, as XMP writes it.
        creator: Who is named as its creator.
        credit: Line of credit.
        rights: Notice of rights.
        title: Title.
        alt_text: What it shows, for those who do not see it.
        keywords: Words by which it is found.
        prompt: The prompt.
        prompt_writer: Who wrote it.
        recipe: Canonical JSON of its recipe.
        synthetic_performer: Whether it shows a person who does not exist; None says nothing.
    """

    source_type: str
    system: str
    system_version: str
    document: str = ""
    made_at: str = ""
    creator: str = ""
    credit: str = ""
    rights: str = ""
    title: str = ""
    alt_text: str = ""
    keywords: tuple[str, ...] = ()
    prompt: str = ""
    prompt_writer: str = ""
    recipe: str = ""
    synthetic_performer: bool | None = None


def of_master(recipe: Recipe, system: str, source_type: str, request_key: str, n: int) -> Packet:
    """Return the packet of a master: a function of its recipe and of what its sources say of themselves.

    Args:
        recipe: The recipe.
        system: diffusers class of the pipeline, which follows from the recipe.
        source_type: Digital source type.
        request_key: 64 hex digits.
        n: Output number.
    """
    document = document_of(request_key, n)
    return packet_of(
        Properties(source_type=source_type, system=system, system_version=recipe.model, document=document), ""
    )


def document_of(request_key: str, n: int) -> str:
    """Return the name by which files tell of which output they are."""
    return f"urn:sdbatch:{request_key}:{n}"


def packet_of(properties: Properties, suffix: str) -> Packet:
    """Return the packet of some properties.

    Args:
        properties: The properties.
        suffix: Type of the file. JPEG takes 64 KiB: of longer texts the longest is cut.
    """
    data = _packed(properties)
    bound = _BOUNDS.get(suffix)
    while bound is not None and len(data) > bound:
        properties = _shorter(properties, len(data) - bound)
        data = _packed(properties)
    return Packet(data=data, source_type=properties.source_type)


_TEXTS: Final = ("recipe", "prompt", "alt_text", "rights", "title", "credit", "creator", "prompt_writer")


def _shorter(properties: Properties, excess_bytes: int) -> Properties:
    """Cut the text that takes most; half a recipe is none, so that it goes as a whole."""
    if properties.recipe:
        return replace(properties, recipe="")
    if sum(map(len, properties.keywords)) > max(len(getattr(properties, name)) for name in _TEXTS):
        return replace(properties, keywords=properties.keywords[: len(properties.keywords) // 2])
    name = max(_TEXTS, key=lambda name: len(_escaped(getattr(properties, name))))
    text = getattr(properties, name).removesuffix(CUT)
    share = excess_bytes / max(len(_escaped(text).encode()), 1)
    kept = max(int(len(text) * (1 - share)) - len(CUT) - 8, 0)
    return replace(properties, **{name: text[:kept] + CUT})


def _packed(one: Properties) -> bytes:
    items = [
        _plain("Iptc4xmpExt:DigitalSourceType", one.source_type),
        _plain("Iptc4xmpExt:AISystemUsed", one.system),
        _plain("Iptc4xmpExt:AISystemVersionUsed", one.system_version),
        _plain("Iptc4xmpExt:AIPromptInformation", one.prompt),
        _plain("Iptc4xmpExt:AIPromptWriterName", one.prompt_writer),
        _plain("xmp:CreatorTool", CREATOR_TOOL),
        _plain("xmp:CreateDate", one.made_at),
        _plain("xmpMM:DocumentID", one.document),
        _listed("dc:creator", "Seq", (one.creator,)),
        _worded("dc:rights", one.rights),
        _worded("dc:title", one.title),
        _worded("Iptc4xmpCore:AltTextAccessibility", one.alt_text),
        _worded("dc:description", one.alt_text),
        _listed("dc:subject", "Bag", one.keywords),
        _plain("photoshop:Credit", one.credit),
        _plain("sdbatch:Recipe", one.recipe),
    ]
    if one.synthetic_performer is not None:
        items.append(_plain("sdbatch:SyntheticPerformer", str(one.synthetic_performer)))
    body = "".join(items)
    spaces = "".join(f' xmlns:{name}="{uri}"' for name, uri in NAMESPACES.items() if f"<{name}:" in body)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""{spaces}>{body}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _plain(name: str, text: str) -> str:
    return f"<{name}>{_escaped(text)}</{name}>" if text else ""


def _worded(name: str, text: str) -> str:
    item = f'<rdf:li xml:lang="x-default">{_escaped(text)}</rdf:li>'
    return f"<{name}><rdf:Alt>{item}</rdf:Alt></{name}>" if text else ""


def _listed(name: str, kind: str, texts: tuple[str, ...]) -> str:
    items = "".join(f"<rdf:li>{_escaped(text)}</rdf:li>" for text in texts if text)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>" if items else ""


def _escaped(text: str) -> str:
    """Return a text as it stands in XML on one line; a character that XML cannot hold becomes U+FFFD."""
    text = _FORBIDDEN.sub("\ufffd", text)
    for raw, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, written)
    return text.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")


def read_packet(data: bytes | None) -> dict[str, Any]:
    """Return the properties of a packet by name, such as `dc:title`: a text, or a list of texts.

    Whatever cannot be read says nothing: a packet may be anybody's. Packets with a DOCTYPE, which no program writes,
    are not read.
    """
    if data is None or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return {}
    try:
        root = ET.fromstring(data.strip(b"\0 "))  # noqa: S314 -- entities were refused
    except (ET.ParseError, ValueError, LookupError):
        return {}
    prefixes = {uri: name for name, uri in NAMESPACES.items()}
    found: dict[str, Any] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for tag, text in description.attrib.items():
            if name := _short(tag, prefixes):
                found.setdefault(name, text)
        for child in description:
            if name := _short(child.tag, prefixes):
                found.setdefault(name, _value(child))
    return found


def _short(tag: str, prefixes: Mapping[str, str]) -> str:
    uri, _, name = tag.removeprefix("{").partition("}")
    return f"{prefixes[uri]}:{name}" if uri in prefixes else ""


def _value(element: ET.Element) -> str | list[str]:
    items = element.findall(f".//{{{_RDF}}}li")
    if items and items[0].get(_XML_LANG) is not None:
        return items[0].text or ""
    if items:
        return [item.text or "" for item in items]
    return element.text or element.get(f"{{{_RDF}}}resource") or ""
