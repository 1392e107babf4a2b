/* Runs an exported model: reads inputs from standard input, writes the outputs of each step to
   standard output, then prints the nanoseconds of a step. The command line of the compiler says
   -DMODEL=NAME -DHEADER="NAME.h" -DINPUTS=I, or -DTOKENS for one of tokens, and -DOUTPUTS=O. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <time.h>

#include HEADER

#define JOINED(a, b) a##b
#define NAMED(a, b) JOINED(a, b)

#ifdef TOKENS
typedef int32_t number;
#define INPUTS 1
#define STEP(x, y) NAMED(MODEL, _step)(&state, *(x), y)
#else
typedef float number;
#define STEP(x, y) NAMED(MODEL, _step)(&state, x, y)
#endif

enum { max_inputs = 4096 };
static NAMED(MODEL, _state) state;
static number inputs[max_inputs];
static float y[OUTPUTS];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(void)
{
    size_t steps = fread(inputs, sizeof *inputs, max_inputs, stdin) / INPUTS;
    NAMED(MODEL, _reset)(&state);
    for (size_t t = 0; t < steps; t++) {
        STEP(inputs + t * INPUTS, y);
        fwrite(y, sizeof *y, OUTPUTS, stdout);
    }
    double best = 1e9;
    for (int round = 0; round < 20 && steps > 0; round++) {
        double start = now(), count = 0;
        while (now() - start < 0.005)
            for (size_t t = 0; t < steps; t++, count++)
                STEP(inputs + t * INPUTS, y);
        double time = (now() - start) / count;
        best = time < best ? time : best;
    }
    fprintf(stderr, "%.0f\n", 1e9 * best);
    return 0;
}
