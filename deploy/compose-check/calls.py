"""Calls through the port that compose publishes, by the official SDKs, half of them streamed: `calls.py URL COUNT`."""

import sys

import anthropic
import openai

URL, COUNT = sys.argv[1], int(sys.argv[2])
oai = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-compose-check", max_retries=0)
ant = anthropic.Anthropic(base_url=f"{URL}/anthropic", api_key="sk-ant-compose-check", max_retries=0)

answered = 0
for number in range(COUNT):
    question = f"What is {number} plus {number}?"
    if number % 2:
        chunks = list(oai.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], stream=True))
        answered += any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in chunks)
    elif number % 4:
        message = ant.messages.create(model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": question}])
        answered += bool(message.content)
    else:
        answer = oai.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}])
        answered += bool(answer.choices[0].message.content)
print(f"{answered} of {COUNT} calls answered")
sys.exit(answered != COUNT)
