"""One file a verb. A verb is a typer function with ``@register("verb", NAME, group=...)``; settings add their own."""
