"""A small picture that says what a policy decided."""

NONE = "no decision"
"""What the badge says where nothing was decided, or nothing may be seen."""
COLOURS = {"pass": "#2e7d32", "fail": "#c62828", "inconclusive": "#8d6e00", NONE: "#616161"}


def badge(policy: str, verdict: str) -> str:
    """An SVG of two boxes: `husai <policy>` and the verdict."""
    left, right = f"husai {policy}", verdict
    first, second = 7 * len(left) + 12, 7 * len(right) + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{first + second}" height="20" role="img" '
        f'aria-label="{left}: {right}"><title>{left}: {right}</title>'
        f'<rect width="{first}" height="20" fill="#37474f"/>'
        f'<rect x="{first}" width="{second}" height="20" fill="{COLOURS[verdict]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{first / 2}" y="14">{left}</text><text x="{first + second / 2}" y="14">{right}</text></g></svg>'
    )
