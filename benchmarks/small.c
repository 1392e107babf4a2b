// Small recurrent layers of one input, whose sizes are known to the compiler: a peer of sessions.
// Compiled with -DH=16 and the like, for speed alone (-O3 -march=native -ffast-math).
#include <math.h>

// Weights as PyTorch orders them, transposed: of each term the gates of all units.
struct layer {
    float x_weights[4 * H], h_weights[H][4 * H], x_biases[4 * H], h_biases[4 * H];
    float h[H], c[H];
};

static inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static inline void multiply(const struct layer *l, int gates, float *sums) {
    for (int n = 0; n < gates * H; n++)
        sums[n] = l->h_biases[n];
    for (int k = 0; k < H; k++)
        for (int n = 0; n < gates * H; n++)
            sums[n] += l->h[k] * l->h_weights[k][n];
}

void lstm(struct layer *l, const float *x, float *y, int steps) {
    for (int t = 0; t < steps; t++) {
        float a[4 * H];
        multiply(l, 4, a);
        for (int n = 0; n < 4 * H; n++)
            a[n] += l->x_biases[n] + x[t] * l->x_weights[n];
        for (int u = 0; u < H; u++) {
            l->c[u] = sigmoid(a[H + u]) * l->c[u] + sigmoid(a[u]) * tanhf(a[2 * H + u]);
            y[t * H + u] = l->h[u] = sigmoid(a[3 * H + u]) * tanhf(l->c[u]);
        }
    }
}

void gru(struct layer *l, const float *x, float *y, int steps) {
    for (int t = 0; t < steps; t++) {
        float a[4 * H], b[4 * H];
        multiply(l, 3, a);
        for (int n = 0; n < 3 * H; n++)
            b[n] = l->x_biases[n] + x[t] * l->x_weights[n];
        for (int u = 0; u < H; u++) {
            float r = sigmoid(a[u] + b[u]), z = sigmoid(a[H + u] + b[H + u]);
            float n = tanhf(b[2 * H + u] + r * a[2 * H + u]);
            y[t * H + u] = l->h[u] = (1 - z) * n + z * l->h[u];
        }
    }
}
