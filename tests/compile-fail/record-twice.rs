use journey_layer::journey_record;

fn main() {
    journey_record!(n = 1, prompt_tokens = 3, gen_ai.usage.input_tokens = 3);
}
