/* Fibers and the scheduler that chooses which of them runs: see emulator.h. */
#include "emulator.h"

#include <deque>
#include <set>
#include <stdlib.h>

namespace emulator
{

Place *place;
Fiber *current;

static void *scheduler;            /* the launching thread's stack pointer while fibers run */
static std::deque<Fiber *> line;   /* ready ones, first or last come first */
static std::vector<Fiber *> crowd; /* ready ones of which any comes next */
static std::set<std::pair<uint64_t, Warp *>> ranks; /* warps with ready lanes, by priority */
static std::vector<Fiber *> pollers;
static uint64_t progress; /* counts what may let a poll see something else */
static uint64_t random_state = 1;

/*
 * Callee-saved registers go to the stack and come from the other one. (ucontext would do, but asks
 * the kernel for signal masks, and a launch has millions of turns.)
 */
extern "C" void emulator_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");
#else
#error "the emulator switches stacks on x86-64 alone"
#endif

void seed_draws(uint64_t seed)
{
    random_state = seed * 0x9e3779b97f4a7c15U | 1;
    for (int i = 0; i < 10; i++)
        (void)draw();
}

uint64_t draw()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dU >> 11;
}

bool draw_one_of(uint64_t n)
{
    return draw() % n == 0;
}

static void rank_warp(Warp *warp)
{
    if (draw_one_of(4096)) {
        warp->priority = draw();
        if (draw_one_of(8))
            warp->block->priority = draw();
    }
    uint64_t priority = warp->priority;
    if (settings.order == Order::blocks)
        priority = priority >> 32 | warp->block->priority << 32;
    warp->priority = priority;
    ranks.insert({priority, warp});
}

void make_ready(Fiber *fiber)
{
    fiber->state = State::ready;
    switch (settings.order) {
    case Order::fifo:
        line.push_back(fiber);
        break;
    case Order::lifo:
        line.push_front(fiber);
        break;
    case Order::random:
        crowd.push_back(fiber);
        break;
    case Order::warps:
    case Order::blocks:
        if (fiber->warp->ready.empty())
            rank_warp(fiber->warp);
        fiber->warp->ready.push_back(fiber);
        break;
    }
}

void make_all_ready(std::vector<Fiber *> &fibers)
{
    for (Fiber *fiber : fibers)
        make_ready(fiber);
    fibers.clear();
}

static Fiber *take_ready()
{
    Fiber *fiber = nullptr;
    if (!line.empty()) {
        fiber = line.front();
        line.pop_front();
    } else if (!crowd.empty()) {
        const size_t i = draw() % crowd.size();
        fiber = crowd[i];
        crowd[i] = crowd.back();
        crowd.pop_back();
    } else if (!ranks.empty()) {
        Warp *warp = ranks.begin()->second;
        fiber = warp->ready.back();
        warp->ready.pop_back();
        if (warp->ready.empty())
            ranks.erase(ranks.begin());
    }
    return fiber;
}

/* Nobody can go on but those that look at memory again and again. They may wait for blocks that
 * have not started; when all of those have, and nothing changes, for nothing. */
static bool wake_pollers()
{
    static uint64_t before;
    static int idle_rounds;
    idle_rounds = progress == before ? idle_rounds + 1 : 0;
    before = progress;
    if (pollers.empty() || idle_rounds > 3) {
        idle_rounds = 0;
        return false;
    }
    make_all_ready(pollers);
    return true;
}

static Fiber *choose_next()
{
    for (;;) {
        if (settings.network == Network::random && !network_is_empty() && draw_one_of(64))
            deliver_one();
        Fiber *fiber = take_ready();
        if (fiber != nullptr)
            return fiber;
        if (!network_is_empty()) {
            deliver_one();
            continue;
        }
        if ((resident.empty() || !pollers.empty()) && admit_cluster())
            continue;
        if (!wake_pollers())
            return nullptr;
    }
}

static void run(Fiber *fiber)
{
    fiber->state = State::running;
    current = fiber;
    place = &fiber->place;
}

static void switch_away()
{
    Fiber *const me = current;
    Fiber *next = choose_next();
    if (next == me) {
        me->state = State::running;
        return;
    }
    if (next != nullptr)
        run(next);
    else
        current = nullptr;
    emulator_switch(&me->stack_pointer, next != nullptr ? next->stack_pointer : scheduler);
}

void wait_as(State state, const char *what, Site site)
{
    current->state = state;
    current->what = what;
    current->site = site;
    progress++;
    switch_away();
}

void yield_sometimes()
{
    if (settings.order >= Order::random && draw_one_of(8)) {
        make_ready(current);
        switch_away();
    }
}

uint32_t load_acquire(const void *p, Site site)
{
    Fiber *const me = current;
    uint32_t x;
    me->state = State::polling;
    me->what = "memory";
    me->site = site;
    pollers.push_back(me);
    switch_away();
    memcpy(&x, p, sizeof x);
    if (me->polled != p || me->polled_value != x)
        progress++;
    me->polled = p;
    me->polled_value = x;
    return x;
}

static void fiber_main()
{
    (*thread_body)();
    progress++;
    end_fiber(current);
    /* Not to the next fiber: who chooses it may give this stack to another block. */
    void *nowhere;
    current = nullptr;
    emulator_switch(&nowhere, scheduler);
    abort();
}

void prepare_fiber(Fiber *fiber)
{
    void **top = (void **)((uintptr_t)fiber->stack & ~(uintptr_t)15);
    *--top = nullptr; /* where a caller's address would be */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    fiber->stack_pointer = top;
}

void run_fibers(size_t together)
{
    for (;;) {
        while (resident.size() < together && admit_cluster())
            ;
        Fiber *next = choose_next();
        if (next == nullptr)
            break;
        run(next);
        emulator_switch(&scheduler, next->stack_pointer); /* until a thread ends, or all wait */
    }
    current = nullptr;
    place = nullptr;
}

} // namespace emulator
