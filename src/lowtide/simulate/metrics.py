"""The engine's gauges and counters under vLLM's names, in Prometheus' text form."""

from lowtide.simulate.engine import Engine

_LABELS = '{engine="0",model_name="simulated"}'


def exposition(engine: Engine) -> str:
    """Return what `/metrics` answers."""
    counters = engine.counters
    values = [
        ("num_requests_running", "gauge", "Sequences that have a seat.", engine.running),
        ("num_requests_waiting", "gauge", "Sequences that wait for a seat or for blocks.", engine.waiting),
        ("kv_cache_usage_perc", "gauge", "Share of the blocks in use; 1 is all.", engine.memory_used),
        ("prompt_tokens_total", "counter", "Prompt tokens taken in.", counters.prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens written.", counters.generation_tokens),
        ("prefix_cache_queries_total", "counter", "Prompt tokens looked up.", counters.prefix_queries),
        ("prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", counters.prefix_hits),
        ("request_success_total", "counter", "Sequences that reached their end.", counters.finished),
        ("num_preemptions_total", "counter", "Preemptions: this engine has none.", 0),
    ]
    return "".join(
        f"# HELP vllm:{name} Simulated. {says}\n# TYPE vllm:{name} {kind}\nvllm:{name}{_LABELS} {float(value)}\n"
        for name, kind, says, value in values
    )
