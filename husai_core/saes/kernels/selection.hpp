// Rows in parallel, sums of products, and the search for a row's largest entries.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

// body(first, last) on `threads` consecutive ranges of 0 … count - 1.
template <class Body>
void parallel(int64_t count, int64_t threads, Body body) {
    threads = std::max<int64_t>(1, std::min(threads, count));
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(body, count * i / threads, count * (i + 1) / threads);
    body(int64_t{0}, count / threads);
    for (auto& other : others) other.join();
}

// Entries i * groups + j for all i form group j. Groups of about 16 pay if there are many more groups than k.
int64_t group_size(int64_t n, int64_t k) {
    int64_t size = 1;
    while (size < 16 && n % (2 * size) == 0 && n / (2 * size) >= 4 * k) size *= 2;
    return size;
}

using Lanes = float __attribute__((vector_size(32)));
using Counts = int32_t __attribute__((vector_size(32)));

Lanes lanes(const float* at) {
    Lanes read;
    std::memcpy(&read, at, sizeof read);
    return read;
}

// The largest of some values, changed by `of`; NaN is passed over.
template <class Of>
float largest(const float* values, int64_t count, Of of) {
    Lanes most = Lanes{} - FLT_MAX;
    for (int64_t i = 0; i < count; i += 8) {
        Lanes next = most;
        if (i + 8 <= count) {
            next = of(lanes(values + i));
        } else {
            for (int64_t j = 0; i + j < count; ++j) next[j] = of(Lanes{} + values[i + j])[0];
        }
        most = next > most ? next : most;
    }
    float result = most[0];
    for (int64_t i = 1; i < 8; ++i) result = most[i] > result ? most[i] : result;
    return result;
}

// How many of the values are at least `bound`.
int64_t count_from(const float* values, int64_t count, float bound) {
    int32_t reached = 0;
    for (int64_t i = 0; i < count; ++i) reached += values[i] >= bound;
    return reached;
}

constexpr int64_t FEW = 32, PADDING = 8;

// The k-th largest of a few values, by counting for each how many exceed it; PADDING further ones are overwritten.
float ranked(int64_t k, float* values, int64_t count) {
    Lanes least = Lanes{} + INFINITY;
    std::fill(values + count, values + count + PADDING, NAN);
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i) numbers += values[i] == values[i];
    if (numbers < k) return -INFINITY;
    for (int64_t i = 0; i < count; i += 8) {
        const Lanes group = lanes(values + i);
        Counts above = {};
        for (int64_t j = 0; j < count; ++j) above -= Lanes{} + values[j] > group;
        const Lanes high = above < static_cast<int32_t>(k) ? group : least;
        least = high < least ? high : least;
    }
    return -largest(reinterpret_cast<const float*>(&least), 8, [](Lanes value) { return -value; });
}

// A number that k of the values reach; after enough halvings no more than k do, but for those that equal it.
float reached_by(int64_t k, float* values, int64_t count, int64_t halvings) {
    if (count <= FEW) return ranked(k, values, count);
    float low = -largest(values, count, [](Lanes value) { return -value; });
    float high = largest(values, count, [](Lanes value) { return value; });
    low = std::max(low, -FLT_MAX), high = std::min(high, FLT_MAX);
    if (count_from(values, count, low) < k) return -INFINITY;
    if (count_from(values, count, high) >= k) return high;
    for (int64_t i = 0; i < halvings; ++i) {
        const float middle = low / 2 + high / 2;
        if (middle <= low || middle >= high) break;
        const int64_t reached = count_from(values, count, middle);
        (reached >= k ? low : high) = middle;
        if (reached == k) break;
    }
    return low;
}

constexpr int64_t FEW_HALVINGS = 10, ALL_HALVINGS = 1000;  // for a bound, and for the exact value

struct Search {
    int64_t n, k, size, groups;
    std::vector<float> maxima, values;
    std::vector<int32_t> latents;

    Search(int64_t n, int64_t k)
        : n(n), k(k), size(group_size(n, k)), groups(n / size), maxima(groups + PADDING), values(n + PADDING), latents(n) {}

    // Entries of z that are larger than the k-th largest less `slack`, in order; they are the first of `values`.
    int64_t candidates(const float* z, float slack) {
        const int64_t count = collect(z, kth_maximum(z) - slack);
        return slack == 0 ? count : keep(count, reached_by(k, values.data(), count, FEW_HALVINGS) - slack);
    }

    // Entries of z from `bound` on.
    int64_t collect(const float* z, float bound) {
        int64_t count = 0, i = 0;
#ifdef __AVX2__
        const __m256 least = _mm256_set1_ps(bound);
        for (; i + 8 <= n; i += 8) {
            uint32_t hits = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(z + i), least, _CMP_GE_OQ));
            for (; hits; hits &= hits - 1) {
                const int64_t at = i + __builtin_ctz(hits);
                values[count] = z[at];
                latents[count++] = static_cast<int32_t>(at);
            }
        }
#endif
        for (; i < n; ++i)
            if (z[i] >= bound) {
                values[count] = z[i];
                latents[count++] = static_cast<int32_t>(i);
            }
        return count;
    }

    // Those of the first `count` candidates that are at least `bound`.
    int64_t keep(int64_t count, float bound) {
        int64_t kept = 0;
        for (int64_t i = 0; i < count; ++i) {
            values[kept] = values[i];
            latents[kept] = latents[i];
            kept += values[i] >= bound;
        }
        return kept;
    }

    // At most the k-th largest entry of z.
    float kth_maximum(const float* z) {
        std::memcpy(maxima.data(), z, groups * sizeof(float));
        for (int64_t i = 1; i < size; ++i) {
            const float* slice = z + i * groups;
            for (int64_t j = 0; j < groups; ++j) maxima[j] = slice[j] > maxima[j] ? slice[j] : maxima[j];
        }
        return reached_by(k, maxima.data(), groups, FEW_HALVINGS);
    }

    // The k largest of the first `count` candidates, of equal ones the first; NaN where there are fewer, as the row holds NaN.
    void write(int64_t count, int32_t offset, float* to_values, int32_t* to_latents) {
        const float least = reached_by(k, values.data(), count, ALL_HALVINGS);
        int64_t above = 0, to = 0;
        for (int64_t i = 0; i < count; ++i) above += values[i] > least;
        for (int64_t i = 0, equal = k - above; i < count && to < k; ++i) {
            if (!(values[i] > least || (values[i] == least && equal-- > 0))) continue;
            to_values[to] = values[i];
            to_latents[to++] = offset + latents[i];
        }
        std::fill(to_values + to, to_values + k, NAN);
        std::fill(to_latents + to, to_latents + k, offset);
    }
};

float dot(const float* a, const float* b, int64_t d) {
    Lanes sums[4] = {};
    int64_t c = 0;
    for (; c + 32 <= d; c += 32)
        for (int64_t i = 0; i < 4; ++i) sums[i] += lanes(a + c + 8 * i) * lanes(b + c + 8 * i);
    const Lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float sum = 0;
    for (int64_t i = 0; i < 8; ++i) sum += all[i];
    for (; c < d; ++c) sum += a[c] * b[c];
    return sum;
}

void add(float* out, float weight, const float* row, int64_t d) {
    for (int64_t c = 0; c < d; ++c) out[c] += weight * row[c];
}

}  // namespace
